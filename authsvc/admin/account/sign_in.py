"""Signing in, here or at the OpenID provider, in one step or with a second factor in two, and signing out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from flask import Response, abort, g, request, session, url_for

from authsvc.accounts.sign_in.methods import Factor, How, Method, Missing
from authsvc.admin.account import enrolment, pending
from authsvc.admin.cookies import is_plain_loopback
from authsvc.admin.guard import begin_session, end_session, session_offer
from authsvc.admin.pages import page_blueprint, redirect_to, render
from authsvc.errors import AuthsvcError, InvalidInput, Unauthenticated
from authsvc.identity.oidc import PendingSignIn
from authsvc.web.problem import status_of
from authsvc.web.redirects import HOME, path_on_this_host
from authsvc.web.request_context import actor_for, public, services

if TYPE_CHECKING:
    from werkzeug.wrappers import Response as AnyResponse

    from authsvc.accounts.sign_in.methods import SignIn
    from authsvc.accounts.sign_in.second_factor import Enrolment

blueprint = page_blueprint("sign_in", __name__)
_MAX_PASSWORD = 4096
_MAX_CODE = 64
_AT_PROVIDER = "at provider"
_FAILURES = {
    "token": "The API token in the link is wrong, expired or revoked.",
    "late": "The sign-in was not finished within 5 minutes. Please sign in again.",
}


@blueprint.get("/sign-in")
@public
def form() -> AnyResponse:
    """Show the sign-in form."""
    leads_to = path_on_this_host(request.args.get("redirect", HOME))
    if g.caller:
        return redirect_to(leads_to)
    if "failed" in request.args:
        return _form(leads_to, "", _FAILURES.get(request.args["failed"]), 401)
    return _form(leads_to, "", None, 200)


@blueprint.post("/sign-in")
@public
def sign_in() -> AnyResponse:
    """Check the username and password, and begin a session or go on to the second factor."""
    leads_to = path_on_this_host(request.form.get("redirect", HOME))
    username, password = request.form.get("username", ""), request.form.get("password", "")[:_MAX_PASSWORD]
    try:
        signed_in = services().sign_ins.with_password(username, password, request.remote_addr, directory_too=True)
        return _go_on(signed_in, leads_to)
    except InvalidInput:
        raise
    except AuthsvcError as error:
        return _form(leads_to, username, error.message, status_of(error))


@blueprint.get("/sign-in/provider")
@public
def begin_at_provider() -> AnyResponse:
    """Send the browser to the OpenID provider."""
    leads_to = path_on_this_host(request.args.get("redirect", HOME))
    provider = services().external_sign_ins.provider or abort(404)
    try:
        address, begun = provider.begin(_outside("sign_in.finish_at_provider"), leads_to)
    except AuthsvcError as error:
        return _form(leads_to, "", error.message, status_of(error))
    session[_AT_PROVIDER] = tuple(begun)
    return redirect_to(address)


@blueprint.get("/sign-in/callback")
@public
def finish_at_provider() -> AnyResponse:
    """Begin the session of a browser that comes back from the OpenID provider. Each start is good for one return."""
    external = services().external_sign_ins
    provider, kept = external.provider or abort(404), session.pop(_AT_PROVIDER, None)
    leads_to = HOME
    try:
        if kept is None:
            raise Unauthenticated("this browser has begun no sign-in at the provider; start it again", "no-sign-in")
        begun = PendingSignIn(*kept)
        leads_to = begun.leads_to
        answer, back_to = request.args.to_dict(), _outside("sign_in.finish_at_provider")
        user, id_token = external.with_provider(provider, begun, answer, back_to, request.remote_addr)
        return _go_on(services().sign_ins.confirmed_by(Method.OIDC, user), leads_to, id_token)
    except AuthsvcError as error:
        return _form(leads_to, "", error.message, status_of(error))


@blueprint.get("/sign-in/code")
@public
def code_form() -> AnyResponse:
    """Ask for the code of the second factor."""
    return render("admin/sign_in_code.html") if pending.present() else _too_late()


@blueprint.post("/sign-in/code")
@public
def check_code() -> AnyResponse:
    """Check the code, and begin a session."""
    begun = pending.present()
    if begun is None:
        return _too_late()
    code = request.form.get("otp", "")[:_MAX_CODE]
    try:
        signed_in = services().sign_ins.complete(begun.sign_in, begun.actor, code)
        return _enter(signed_in, begun.leads_to, begun.id_token)
    except AuthsvcError as error:
        return render("admin/sign_in_code.html", status_of(error), failure=error.message)


@blueprint.get("/sign-in/set-up")
@public
def set_up_form() -> AnyResponse:
    """Show the QR code to a user that needs a second factor before anything else."""
    return _set_up(None)


@blueprint.post("/sign-in/set-up")
@public
def confirm_set_up() -> AnyResponse:
    """Check the first code, begin a session, and show the recovery codes."""
    begun = pending.present()
    if begun is None or _started(begun) is None:
        return _too_late()
    try:
        recovery_codes = services().second_factors.confirm(begun.actor, request.form.get("otp", "")[:_MAX_CODE])
    except AuthsvcError as error:
        return _set_up(error)
    how = How(begun.sign_in.how.method, Factor.CODE)
    begin_session(replace(begun.sign_in, how=how, missing=Missing.NOTHING), begun.id_token)
    g.caller = begun.sign_in.user
    return enrolment.render_recovery_codes(recovery_codes, _destination(begun.sign_in, begun.leads_to))


@blueprint.get("/replace-session")
@public
def replace_session_form() -> AnyResponse:
    """Ask whether an API token from a link may replace the session of another user."""
    offer = session_offer()
    return render("admin/replace_session.html", offered=offer.sign_in.user) if offer else redirect_to(HOME)


@blueprint.post("/replace-session")
@public
def replace_session() -> AnyResponse:
    """Begin the session of the token's user, and end the present one."""
    offer = session_offer()
    if offer is None:
        return redirect_to(url_for("sign_in.form", failed="token"))
    begin_session(offer.sign_in)
    return redirect_to(offer.leads_to)


@blueprint.post("/sign-out")
@public
def sign_out() -> AnyResponse:
    """End the session, and with the OpenID provider's help its own one too; this needs no permission."""
    id_token = end_session(g.caller) if g.caller else None
    provider = services().external_sign_ins.provider
    address = (
        provider.sign_out_address(id_token, _outside("sign_in.form")) if provider and id_token is not None else None
    )
    if address is None or provider is None:
        return redirect_to("/admin/sign-in")
    # Not a redirect: the Content-Security-Policy keeps forms, and what they redirect to, on this host.
    page = render("admin/signed_out.html", address=address, provider=provider.name)
    page.headers["Refresh"] = f"0; url={address}"
    return page


def _go_on(signed_in: SignIn, leads_to: str, id_token: str | None = None) -> AnyResponse:
    """Begin a session, or return a redirect to the step that is still missing."""
    if signed_in.missing is Missing.NOTHING:
        return _enter(signed_in, leads_to, id_token)
    pending.remember(signed_in, leads_to)
    if signed_in.missing is Missing.CODE:
        return redirect_to(url_for("sign_in.code_form"))
    enrolment.remember(services().second_factors.begin(actor_for(signed_in.user, signed_in.proof)))
    return redirect_to(url_for("sign_in.set_up_form"))


def _enter(signed_in: SignIn, leads_to: str, id_token: str | None = None) -> AnyResponse:
    begin_session(signed_in, id_token)
    return redirect_to(_destination(signed_in, leads_to))


def _destination(signed_in: SignIn, leads_to: str) -> str:
    """Return where to go after a sign-in: the own account instead of an overview that the user may not see."""
    sees_overview = services().access.may_call(signed_in.user, "GET", "/api/me")
    return leads_to if leads_to != HOME or sees_overview else url_for("account_page.show")


def _started(begun: pending.PendingSignIn) -> Enrolment | None:
    return enrolment.own(services().second_factors.begun(begun.sign_in.user.username))


def _set_up(error: AuthsvcError | None) -> AnyResponse:
    begun = pending.present()
    started = begun and _started(begun)
    if started is None:
        return _too_late()
    return enrolment.render_set_up(started, url_for("sign_in.confirm_set_up"), error)


def _too_late() -> AnyResponse:
    return redirect_to(url_for("sign_in.form", failed="late"))


def _outside(endpoint: str) -> str:
    """Return the address of a page as browsers and the provider know it; behind a proxy that ends TLS it is https."""
    return url_for(endpoint, _external=True, _scheme="http" if is_plain_loopback() else "https")


def _form(leads_to: str, username: str, failure: str | None, status: int) -> Response:
    provider = services().external_sign_ins.provider
    return render(
        "admin/sign_in.html",
        status,
        leads_to=leads_to,
        username=username,
        failure=failure,
        changed=status == 200 and "changed" in request.args,  # noqa: PLR2004
        provider=provider.name if provider else None,
    )

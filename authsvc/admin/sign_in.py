"""Signing in and out, here and at the OpenID provider."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Response, abort, g, request, session, url_for

from authsvc.admin.cookies import is_plain_loopback
from authsvc.admin.guard import begin_session, end_session, session_offer
from authsvc.admin.pages import page_blueprint, redirect_to, render
from authsvc.errors import AuthsvcError, InvalidInput, Unauthenticated
from authsvc.identity.oidc import PendingSignIn
from authsvc.web.problem import status_of
from authsvc.web.redirects import HOME, path_on_this_host
from authsvc.web.request_context import public, services

if TYPE_CHECKING:
    from werkzeug.wrappers import Response as AnyResponse

blueprint = page_blueprint("sign_in", __name__)
_MAX_PASSWORD = 4096
_PENDING = "pending"


@blueprint.get("/sign-in")
@public
def form() -> AnyResponse:
    """Show the sign-in form."""
    leads_to = path_on_this_host(request.args.get("redirect", HOME))
    if g.caller:
        return redirect_to(leads_to)
    if "failed" in request.args:
        return _form(leads_to, "", "The API token in the link is wrong, expired or revoked.", 401)
    return _form(leads_to, "", None, 200)


@blueprint.post("/sign-in")
@public
def sign_in() -> AnyResponse:
    """Check the username and password, and begin a session."""
    leads_to = path_on_this_host(request.form.get("redirect", HOME))
    username, password = request.form.get("username", ""), request.form.get("password", "")[:_MAX_PASSWORD]
    try:
        begin_session(services().sign_ins.with_password(username, password, request.remote_addr, directory_too=True))
    except InvalidInput:
        raise
    except AuthsvcError as error:
        return _form(leads_to, username, error.message, status_of(error))
    return redirect_to(leads_to)


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
    address = provider.sign_out_address(id_token, _outside("sign_in.form")) if provider and id_token else None
    if address is None or provider is None:
        return redirect_to("/admin/sign-in")
    # Not a redirect: the Content-Security-Policy keeps forms, and what they redirect to, on this host.
    page = render("admin/signed_out.html", address=address, provider=provider.name)
    page.headers["Refresh"] = f"0; url={address}"
    return page


@blueprint.get("/sign-in/provider")
@public
def begin_at_provider() -> AnyResponse:
    """Send the browser to the OpenID provider."""
    leads_to = path_on_this_host(request.args.get("redirect", HOME))
    provider = services().external_sign_ins.provider or abort(404)
    try:
        address, pending = provider.begin(_outside("sign_in.finish_at_provider"), leads_to)
    except AuthsvcError as error:
        return _form(leads_to, "", error.message, status_of(error))
    session[_PENDING] = tuple(pending)
    return redirect_to(address)


@blueprint.get("/sign-in/callback")
@public
def finish_at_provider() -> AnyResponse:
    """Begin the session of a browser that comes back from the OpenID provider. Each start is good for one return."""
    external = services().external_sign_ins
    provider, kept = external.provider or abort(404), session.pop(_PENDING, None)
    leads_to = HOME
    try:
        if kept is None:
            raise Unauthenticated("this browser has begun no sign-in at the provider; start it again", "no-sign-in")
        pending = PendingSignIn(*kept)
        leads_to = pending.leads_to
        answer, back_to = request.args.to_dict(), _outside("sign_in.finish_at_provider")
        signed_in, id_token = external.with_provider(provider, pending, answer, back_to, request.remote_addr)
        begin_session(signed_in, id_token)
    except AuthsvcError as error:
        return _form(leads_to, "", error.message, status_of(error))
    return redirect_to(leads_to)


def _outside(endpoint: str) -> str:
    """Return the address of a page as browsers and the provider know it; behind a proxy that ends TLS it is https."""
    return url_for(endpoint, _external=True, _scheme="http" if is_plain_loopback() else "https")


def _form(leads_to: str, username: str, failure: str | None, status: int) -> Response:
    provider = services().external_sign_ins.provider
    name = provider.name if provider else None
    return render("admin/sign_in.html", status, leads_to=leads_to, username=username, failure=failure, provider=name)

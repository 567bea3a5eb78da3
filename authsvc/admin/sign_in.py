"""Signing in and out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Response, g, request, url_for

from authsvc.admin.guard import begin_session, end_session, session_offer
from authsvc.admin.pages import page_blueprint, redirect_to, render
from authsvc.errors import AuthsvcError, InvalidInput
from authsvc.web.problem import status_of
from authsvc.web.redirects import HOME, path_on_this_host
from authsvc.web.request_context import public, services

if TYPE_CHECKING:
    from werkzeug.wrappers import Response as AnyResponse

blueprint = page_blueprint("sign_in", __name__)
_MAX_PASSWORD = 4096


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
        begin_session(services().sign_ins.with_password(username, password, request.remote_addr))
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
    """End the session; this needs no permission."""
    if g.caller:
        end_session(g.caller)
    return redirect_to("/admin/sign-in")


def _form(leads_to: str, username: str, failure: str | None, status: int) -> Response:
    return render("admin/sign_in.html", status, leads_to=leads_to, username=username, failure=failure)

"""Signing in and out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Response, g, request, url_for

from authsvc.admin.guard import begin_session, end_session, offered
from authsvc.admin.pages import pages, render, see
from authsvc.admin.redirects import HOME, path_on_this_host
from authsvc.errors import AuthsvcError, InvalidInput
from authsvc.web.problem import status_of
from authsvc.web.request_context import public, services

if TYPE_CHECKING:
    from werkzeug.wrappers import Response as AnyResponse

blueprint = pages("sign_in", __name__)
_MAX_PASSWORD = 4096


@blueprint.get("/sign-in")
@public
def form() -> AnyResponse:
    """Ask who is there."""
    leads_to = path_on_this_host(request.args.get("redirect", HOME))
    if g.caller:
        return see(leads_to)
    failed = "The token in the address is wrong, expired or revoked." if "failed" in request.args else None
    return _form(leads_to, "", failed, 401 if failed else 200)


@blueprint.post("/sign-in")
@public
def sign_in() -> AnyResponse:
    """Check username and password, and begin a session."""
    leads_to = path_on_this_host(request.form.get("redirect", HOME))
    username, password = request.form.get("username", ""), request.form.get("password", "")[:_MAX_PASSWORD]
    try:
        begin_session(services().sign_ins.check_password(username, password, request.remote_addr))
    except InvalidInput:
        raise
    except AuthsvcError as error:
        return _form(leads_to, username, error.message, status_of(error))
    return see(leads_to)


@blueprint.get("/replace-session")
@public
def ask_to_replace_session() -> AnyResponse:
    """Ask whether a token that stood in the address is to replace the session of another user."""
    offer = offered()
    return render("admin/replace_session.html", offered=offer.user) if offer else see(HOME)


@blueprint.post("/replace-session")
@public
def replace_session() -> AnyResponse:
    """Begin the session that was offered, in place of the present one."""
    offer = offered()
    if offer is None:
        return see(url_for("sign_in.form", failed="token"))
    begin_session(offer.user, offer.token_digest)
    return see(offer.leads_to)


@blueprint.post("/sign-out")
@public
def sign_out() -> AnyResponse:
    """End the session; also of whoever may do nothing else."""
    if g.caller:
        end_session(g.caller)
    return see("/admin/sign-in")


def _form(leads_to: str, username: str, failed: str | None, status: int) -> Response:
    return render("admin/sign_in.html", status, leads_to=leads_to, username=username, failed=failed)

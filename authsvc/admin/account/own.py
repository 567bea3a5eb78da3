"""The page of the own account: password, second factor, browser sessions and API tokens. It needs no permission."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Response, flash, request, url_for

from authsvc.accounts import api_tokens, browser_sessions, users
from authsvc.accounts.sign_in import own_account, second_factor
from authsvc.accounts.sign_in.methods import Missing
from authsvc.admin.account import enrolment
from authsvc.admin.forms import validated
from authsvc.admin.guard import present_session_id
from authsvc.admin.pages import ORIGINS, authorize_as, page_blueprint, redirect_to, render
from authsvc.api.account import CodeBody, OwnPasswordBody
from authsvc.errors import AuthsvcError, invalid
from authsvc.web.request_context import actor, caller, services, session_lifetime

if TYPE_CHECKING:
    from werkzeug.wrappers import Response as AnyResponse

    from authsvc.accounts.sign_in.second_factor import Enrolment

blueprint = page_blueprint("account_page", __name__)
_MAX_ROWS = 100


@blueprint.get("/account")
@authorize_as("GET", "/api/me/account")
def show() -> Response:
    """Show how the user signs in, and its browser sessions and API tokens."""
    return _page(None)


@blueprint.post("/account/password")
@authorize_as("POST", "/api/me/password")
def change_password() -> AnyResponse:
    """Set a new password, which ends all browser sessions of the user, this one too."""
    form, parts = request.form, services()
    try:
        if form.get("password") != form.get("repeated"):
            raise invalid("repeated", "differs from the new password")
        given = {"currentPassword": form.get("currentPassword", ""), "password": form.get("password", "")}
        body = validated(OwnPasswordBody, **given)
        own_account.change_password(parts.sign_ins, actor(), body.current_password, body.password, parts.hasher)
    except AuthsvcError as error:
        return _page(error)
    return redirect_to(url_for("sign_in.form", changed="password"))


@blueprint.post("/account/second-factor")
@authorize_as("POST", "/api/me/otp")
def begin_second_factor() -> AnyResponse:
    try:
        enrolment.remember(services().second_factors.begin(actor()))
    except AuthsvcError as error:
        return _page(error)
    return redirect_to(url_for("account_page.second_factor_form"))


@blueprint.get("/account/second-factor")
@authorize_as("POST", "/api/me/otp")
def second_factor_form() -> AnyResponse:
    """Show the QR code of a second factor that is being set up."""
    return _set_up(None)


@blueprint.post("/account/second-factor/confirm")
@authorize_as("POST", "/api/me/otp/confirm")
def confirm_second_factor() -> AnyResponse:
    """Check the first code, and show the recovery codes in this response only."""
    if _begun() is None:
        return redirect_to(url_for("account_page.show"))
    try:
        recovery_codes = services().second_factors.confirm(actor(), _code())
    except AuthsvcError as error:
        return _set_up(error)
    return enrolment.render_recovery_codes(recovery_codes, url_for("account_page.show"))


@blueprint.post("/account/second-factor/remove")
@authorize_as("DELETE", "/api/me/otp")
def remove_second_factor() -> AnyResponse:
    try:
        services().sign_ins.remove_second_factor(actor(), _code())
    except AuthsvcError as error:
        return _page(error)
    flash("You have no second factor any more.")
    return redirect_to(url_for("account_page.show"))


@blueprint.post("/account/sessions/<session_id>/end")
@authorize_as("DELETE", "/api/me/sessions/{session_id}")
def end_session(session_id: str) -> AnyResponse:
    browser_sessions.end(actor(), session_id, caller().username)
    flash("The browser is signed out.")
    return redirect_to(url_for("account_page.show"))


@blueprint.post("/account/tokens/<token_id>/revoke")
@authorize_as("DELETE", "/api/me/tokens/{token_id}")
def revoke_token(token_id: str) -> AnyResponse:
    api_tokens.revoke_token(actor(), token_id, caller().username)
    flash("The token is revoked. It is refused from now on.")
    return redirect_to(url_for("account_page.show"))


def _code() -> str:
    return validated(CodeBody, otp=request.form.get("otp", "")).otp


def _begun() -> Enrolment | None:
    return enrolment.own(services().second_factors.begun(caller().username))


def _set_up(error: AuthsvcError | None) -> AnyResponse:
    begun = _begun()
    if begun is None:
        return redirect_to(url_for("account_page.show"))
    return enrolment.render_set_up(begun, url_for("account_page.confirm_second_factor"), error)


def _page(error: AuthsvcError | None) -> Response:
    username = caller().username
    api_tokens.store_uses(services().access.token_uses)
    return render(
        "admin/account.html",
        error=error,
        user=users.get(username),
        origins=ORIGINS,
        recovery_codes_left=second_factor.recovery_codes_left(username),
        must_set_up=services().sign_ins.missing(caller()) is Missing.ENROLMENT,
        sessions=browser_sessions.search(username, session_lifetime(), 1, _MAX_ROWS),
        present=present_session_id(),
        tokens=api_tokens.list_tokens(username, "", 1, _MAX_ROWS),
    )

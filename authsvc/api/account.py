"""The caller's own account over REST: password, second factor, browser sessions, API tokens.

Nobody needs a permission for these calls, because they concern nobody else; a deny rule for `/api/me/#` forbids them.
"""

from __future__ import annotations

from typing import Any

from flask import Response
from pydantic import Field

from authsvc.accounts import api_tokens, browser_sessions, users
from authsvc.accounts.sign_in import own_account, second_factor
from authsvc.api.browser_sessions import SessionPage, SessionView
from authsvc.api.schemas import Body, IdPath, PageQuery, Text, View, noun, render, render_page
from authsvc.api.tokens import TokenPage, TokenView
from authsvc.web.request_context import actor, caller, enrols, services, session_lifetime

blueprint = noun("account", "The caller's own account; these calls need no permission")


class AccountView(View):
    """Where the account comes from, and how its user signs in."""

    username: str
    origin: str = Field(
        description="where the user comes from: an administrator, a registration, OpenID Connect or LDAP"
    )
    has_password: bool
    second_factor: bool
    recovery_codes_left: int


class OwnPasswordBody(Body):
    """A new password; the present one proves that it is the user who asks."""

    current_password: Text = Field(min_length=1, max_length=4096)
    password: Text = Field(max_length=200)


class EnrolmentView(View):
    """The secret for an authenticator app; the second factor is in force once a code of it is confirmed."""

    uri: str = Field(description="for a QR code")
    secret: str = Field(description="Base32, to type into the app")


class CodeBody(Body):
    otp: Text = Field(max_length=64, description="a code of the authenticator app, or a recovery code")


class RecoveryCodesView(View):
    """The recovery codes, which no later request returns; each replaces a code of the app once."""

    recovery_codes: list[str]


@blueprint.get("/me/account", responses={200: AccountView})
def get_account() -> dict[str, Any]:
    """Show how the caller signs in."""
    left = second_factor.recovery_codes_left(caller().username)
    return render(AccountView.of(users.get(caller().username), recovery_codes_left=left))


@blueprint.post("/me/password", responses={204: None})
def change_own_password(body: OwnPasswordBody) -> Response:
    """Set a new password. It ends the caller's browser sessions and connections to the broker."""
    parts = services()
    own_account.change_password(parts.sign_ins, actor(), body.current_password, body.password, parts.hasher)
    return Response(status=204)


@blueprint.post("/me/otp", responses={201: EnrolmentView})
@enrols
def create_own_second_factor() -> tuple[dict[str, Any], int]:
    """Begin to set up a second factor; `POST /api/me/otp/confirm` finishes it."""
    return render(EnrolmentView.of(services().second_factors.begin(actor()))), 201


@blueprint.post("/me/otp/confirm", responses={200: RecoveryCodesView})
@enrols
def confirm_own_second_factor(body: CodeBody) -> dict[str, Any]:
    """Finish the set-up with a code of the app. From now on signing in with the password needs a code."""
    return render(RecoveryCodesView(recovery_codes=services().second_factors.confirm(actor(), body.otp)))


@blueprint.delete("/me/otp", responses={204: None})
def delete_own_second_factor(body: CodeBody) -> Response:
    """Remove the caller's second factor, given one of its codes."""
    services().sign_ins.remove_second_factor(actor(), body.otp)
    return Response(status=204)


@blueprint.get("/me/sessions", responses={200: SessionPage})
def list_own_sessions(query: PageQuery) -> dict[str, Any]:
    """List the caller's browser sessions, latest use first."""
    found = browser_sessions.search(caller().username, session_lifetime(), query.page, query.per_page)
    return render_page(found, map(SessionView.of, found.items))


@blueprint.delete("/me/sessions/<id>", responses={204: None})
def end_own_session(path: IdPath) -> Response:
    """End one of the caller's browser sessions."""
    browser_sessions.end(actor(), path.id, caller().username)
    return Response(status=204)


@blueprint.get("/me/tokens", responses={200: TokenPage})
def list_own_tokens(query: PageQuery) -> dict[str, Any]:
    """List the caller's API tokens, newest first."""
    api_tokens.store_uses(services().access.token_uses)
    found = api_tokens.list_tokens(caller().username, "", query.page, query.per_page)
    return render_page(found, map(TokenView.of, found.items))


@blueprint.delete("/me/tokens/<id>", responses={204: None})
def revoke_own_token(path: IdPath) -> Response:
    """Revoke one of the caller's API tokens."""
    api_tokens.revoke_token(actor(), path.id, caller().username)
    return Response(status=204)

"""API tokens, and the browsers that are signed in: what there is, something new, and an end to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Response, flash, request, url_for

from authsvc.accounts import api_tokens, browser_sessions
from authsvc.admin.forms import submitted, whole_number
from authsvc.admin.pages import ApiCall, NavigationEntry, by_field, must_read, pages, render, see, stands_for
from authsvc.api.browser_sessions import SessionQuery
from authsvc.api.tokens import TokenBody, TokenQuery, issue
from authsvc.errors import AuthsvcError
from authsvc.web.problem import status_of
from authsvc.web.request_context import actor, services, session_lifetime

if TYPE_CHECKING:
    from werkzeug.wrappers import Response as AnyResponse

blueprint = pages("tokens_page", __name__)
NAVIGATION = NavigationEntry(6, "Tokens", "tokens_page.list_", ApiCall("GET", "/api/tokens"))

_LIFETIMES = {
    "12": "12 hours",
    "168": "a week",
    "720": "30 days",
    "8760": "a year",
    "87600": "ten years",
    "876000": "a century",
}


@blueprint.get("/tokens")
@stands_for("GET", "/api/tokens")
def list_() -> Response:
    """List API tokens, newest first, and offer to make one."""
    return _page(None)


@blueprint.post("/tokens")
@stands_for("POST", "/api/tokens")
def create() -> AnyResponse:
    """Make a token and show it, this once."""
    form = request.form
    try:
        body = submitted(
            TokenBody,
            username=form.get("username", ""),
            label=form.get("label", ""),
            expireTimeInHours=whole_number(form.get("expireTimeInHours", "")),
        )
        issued = issue(body)
    except AuthsvcError as error:
        must_read("/api/tokens")
        return _page(error)
    return render("admin/token_issued.html", 201, issued=issued)


@blueprint.post("/tokens/<token_id>/revoke")
@stands_for("DELETE", "/api/tokens/{token_id}")
def revoke(token_id: str) -> AnyResponse:
    """End a token."""
    api_tokens.revoke_token(actor(), token_id)
    flash("The token is revoked and works no more.")
    return see(url_for("tokens_page.list_"))


@blueprint.get("/sessions")
@stands_for("GET", "/api/sessions")
def sessions() -> Response:
    """List the browsers that are signed in."""
    query = submitted(SessionQuery, **request.args.to_dict())
    found = browser_sessions.search(query.username, session_lifetime(), query.page, query.per_page)
    return render("admin/sessions.html", found=found, keep=_kept())


@blueprint.post("/sessions/<session_id>/end")
@stands_for("DELETE", "/api/sessions/{session_id}")
def end_session(session_id: str) -> AnyResponse:
    """Sign a browser out from afar."""
    browser_sessions.end(actor(), session_id)
    flash("That browser is signed out.")
    return see(url_for("tokens_page.sessions"))


def _page(error: AuthsvcError | None) -> Response:
    query = submitted(TokenQuery, **request.args.to_dict())
    api_tokens.store_uses(services().access.token_uses)
    return render(
        "admin/tokens.html",
        status_of(error) if error else 200,
        found=api_tokens.list_tokens(query.username, query.search, query.page, query.per_page),
        query=query,
        keep=_kept(),
        lifetimes=_lifetimes(),
        typed=request.form,
        errors=by_field(error),
    )


def _lifetimes() -> dict[str, str]:
    """Return the lifetimes to choose from, by hours; the longest that is allowed is one of them."""
    most = services().settings.token_max_days
    if most is None:
        return _LIFETIMES
    allowed = {hours: words for hours, words in _LIFETIMES.items() if int(hours) < most * 24}
    return allowed | {str(most * 24): _LIFETIMES.get(str(most * 24), f"{most} days")}


def _kept() -> dict[str, str]:
    return {name: value for name, value in request.args.items() if name != "page"}

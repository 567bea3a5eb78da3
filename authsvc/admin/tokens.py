"""API tokens and browser sessions: list, create and revoke."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Response, flash, request, url_for

from authsvc.accounts import api_tokens, browser_sessions
from authsvc.admin.forms import parse_integer, validated
from authsvc.admin.pages import (
    ApiCall,
    NavigationEntry,
    authorize_as,
    page_blueprint,
    redirect_to,
    render,
    require_read,
)
from authsvc.api.browser_sessions import SessionQuery
from authsvc.api.tokens import TokenBody, TokenQuery, issue
from authsvc.errors import AuthsvcError
from authsvc.web.request_context import actor, services, session_lifetime

if TYPE_CHECKING:
    from werkzeug.wrappers import Response as AnyResponse

blueprint = page_blueprint("tokens_page", __name__)
NAVIGATION = NavigationEntry(7, "Tokens", "tokens_page.list_", ApiCall("GET", "/api/tokens"))

_LIFETIMES = {
    "12": "12 hours",
    "168": "7 days",
    "720": "30 days",
    "8760": "1 year",
    "87600": "10 years",
    "876000": "100 years",
}


@blueprint.get("/tokens")
@authorize_as("GET", "/api/tokens")
def list_() -> Response:
    """List API tokens, newest first, with a form to create one."""
    return _page(None)


@blueprint.post("/tokens")
@authorize_as("POST", "/api/tokens")
def create() -> AnyResponse:
    """Create an API token, and show it in this response only."""
    form = request.form
    try:
        body = validated(
            TokenBody,
            username=form.get("username", ""),
            label=form.get("label", ""),
            expireTimeInHours=parse_integer(form.get("expireTimeInHours", "")),
        )
        issued = issue(body)
    except AuthsvcError as error:
        require_read("/api/tokens")
        return _page(error)
    return render("admin/token_issued.html", 201, issued=issued)


@blueprint.post("/tokens/<token_id>/revoke")
@authorize_as("DELETE", "/api/tokens/{token_id}")
def revoke(token_id: str) -> AnyResponse:
    api_tokens.revoke_token(actor(), token_id)
    flash("The token is revoked. It is refused from now on.")
    return redirect_to(url_for("tokens_page.list_"))


@blueprint.get("/sessions")
@authorize_as("GET", "/api/sessions")
def sessions() -> Response:
    """List the browser sessions."""
    query = validated(SessionQuery, **request.args.to_dict())
    found = browser_sessions.search(query.username, session_lifetime(), query.page, query.per_page)
    return render("admin/sessions.html", found=found, keep=_filters())


@blueprint.post("/sessions/<session_id>/end")
@authorize_as("DELETE", "/api/sessions/{session_id}")
def end_session(session_id: str) -> AnyResponse:
    browser_sessions.end(actor(), session_id)
    flash("The browser is signed out.")
    return redirect_to(url_for("tokens_page.sessions"))


def _page(error: AuthsvcError | None) -> Response:
    query = validated(TokenQuery, **request.args.to_dict())
    # Last uses are buffered in memory; store them so that the list is up to date.
    api_tokens.store_uses(services().access.token_uses)
    return render(
        "admin/tokens.html",
        error=error,
        found=api_tokens.list_tokens(query.username, query.search, query.page, query.per_page),
        query=query,
        keep=_filters(),
        lifetimes=_lifetimes(),
        typed=request.form,
    )


def _lifetimes() -> dict[str, str]:
    """Return labels of the selectable lifetimes by hours, up to and including the longest that the settings allow."""
    max_days = services().settings.token_max_days
    if max_days is None:
        return _LIFETIMES
    allowed = {hours: label for hours, label in _LIFETIMES.items() if int(hours) < max_days * 24}
    return allowed | {str(max_days * 24): _LIFETIMES.get(str(max_days * 24), f"{max_days} days")}


def _filters() -> dict[str, str]:
    return {name: value for name, value in request.args.items() if name != "page"}

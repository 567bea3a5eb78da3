"""API tokens over REST: list, issue, revoke."""

from __future__ import annotations

from typing import Any

from flask import Response
from pydantic import Field

from authsvc.accounts import api_tokens, users
from authsvc.api.schemas import Body, IdPath, Moment, PageView, SearchQuery, Text, View, noun, render, render_page
from authsvc.errors import Forbidden
from authsvc.policy.topics import path_level
from authsvc.web.request_context import actor, caller, services, token_limits

blueprint = noun("tokens", "API tokens")


class TokenBody(Body):
    username: Text = Field("", max_length=255, description="empty: the caller")
    label: Text = Field("", max_length=api_tokens.MAX_LABEL)
    expire_time_in_hours: float = Field(api_tokens.DEFAULT_HOURS, gt=0, le=api_tokens.MAX_HOURS)


class TokenQuery(SearchQuery):
    username: Text = Field("", max_length=255, description="only this user's tokens")


class TokenView(View):
    """A token without its secret."""

    id: str
    username: str
    label: str
    created_at: Moment
    expires_at: Moment
    last_used_at: Moment | None


class NewTokenView(TokenView):
    """A new token with its secret, which no later request returns."""

    token: str


class TokenPage(PageView[TokenView]):
    pass


@blueprint.get("/tokens", responses={200: TokenPage})
def list_tokens(query: TokenQuery) -> dict[str, Any]:
    """List API tokens, newest first."""
    api_tokens.store_uses(services().access.token_uses)
    found = api_tokens.list_tokens(query.username, query.search, query.page, query.per_page)
    return render_page(found, map(TokenView.of, found.items))


@blueprint.post("/tokens", responses={201: NewTokenView})
def create_token(body: TokenBody) -> tuple[dict[str, Any], int]:
    """Issue a token for a user, such as a device that logs in with it; only this response has it."""
    issued = issue(body)
    return render(NewTokenView.of(issued.record, token=issued.token)), 201


def issue(body: TokenBody) -> api_tokens.IssuedToken:
    """Issue the token; for another user only if the caller may PATCH that user, and so set its password."""
    username = body.username or caller().username
    path = f"/api/users/{path_level(username)}"
    if username != caller().username and not services().access.may_call(caller(), "PATCH", path):
        raise Forbidden(f"your account needs the permission `http write {path}` to issue a token for that user")
    return users.issue_token(actor(), username, body.label, body.expire_time_in_hours, token_limits())


@blueprint.delete("/tokens/<id>", responses={204: None})
def revoke_token(path: IdPath) -> Response:
    """Revoke a token, effective at once."""
    api_tokens.revoke_token(actor(), path.id)
    return Response(status=204)

"""API tokens: who holds one, until when, and an end to it."""

from __future__ import annotations

from typing import Any

from flask import Response
from pydantic import BaseModel, Field

from authsvc import logins
from authsvc.api.schemas import Moment, SearchQuery, Text, View, noun, render_page
from authsvc.edge import actor, services

blueprint = noun("tokens", "API tokens")


class TokenPath(BaseModel):
    id: Text = Field(max_length=64)


class TokenQuery(SearchQuery):
    username: Text = Field("", max_length=200, description="only this user's tokens")


class TokenView(View):
    """A token without the token itself, which nobody can show again."""

    id: str
    username: str
    label: str
    created: Moment
    expires: Moment
    last_used: Moment | None


class TokenPage(View):
    items: list[TokenView]
    page: int
    per_page: int
    total: int


@blueprint.get("/tokens", responses={200: TokenPage})
def list_tokens(query: TokenQuery) -> dict[str, Any]:
    """List API tokens, newest first."""
    logins.store_uses(services().access.token_uses)
    found = logins.list_tokens(query.username, query.search, query.page, query.per_page)
    return render_page(found, map(_view, found.items))


@blueprint.delete("/tokens/<id>", responses={204: None})
def revoke(path: TokenPath) -> Response:
    """Revoke a token; it stops working at once."""
    logins.revoke_token(actor(), path.id)
    return Response(status=204)


def _view(record: logins.TokenRecord) -> TokenView:
    return TokenView(
        id=record.id,
        username=record.username,
        label=record.label,
        created=record.created_at,
        expires=record.expires_at,
        last_used=record.last_used_at,
    )

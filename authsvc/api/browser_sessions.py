"""Who is signed in at the administrator's page, and an end to it."""

from __future__ import annotations

from typing import Any

from flask import Response
from pydantic import BaseModel, Field

from authsvc.accounts import browser_sessions
from authsvc.api.schemas import Moment, PageQuery, Text, View, noun, render_page
from authsvc.web.request_context import actor, session_lifetime

blueprint = noun("sessions", "Browsers that are signed in at the administrator's page")


class SessionPath(BaseModel):
    id: Text = Field(max_length=64)


class SessionQuery(PageQuery):
    username: Text = Field("", max_length=200, description="only this user's sessions")


class SessionView(View):
    """One signed-in browser."""

    id: str
    username: str
    created: Moment
    last_seen: Moment
    expires: Moment
    address: str | None
    browser: str
    by_token: bool


class SessionPage(View):
    items: list[SessionView]
    page: int
    per_page: int
    total: int


@blueprint.get("/sessions", responses={200: SessionPage})
def list_sessions(query: SessionQuery) -> dict[str, Any]:
    """List the sessions that go on, latest use first."""
    found = browser_sessions.search(query.username, session_lifetime(), query.page, query.per_page)
    return render_page(found, map(_view, found.items))


@blueprint.delete("/sessions/<id>", responses={204: None})
def end(path: SessionPath) -> Response:
    """End a session; its browser is out at its next click."""
    browser_sessions.end(actor(), path.id)
    return Response(status=204)


def _view(record: browser_sessions.SessionRecord) -> SessionView:
    return SessionView(
        id=record.id,
        username=record.username,
        created=record.created_at,
        last_seen=record.last_seen_at,
        expires=record.expires_at,
        address=record.address,
        browser=record.browser,
        by_token=record.by_token,
    )

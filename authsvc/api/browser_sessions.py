"""Browser sessions of the administrator's page over REST."""

from __future__ import annotations

from typing import Any

from flask import Response
from pydantic import Field

from authsvc.accounts import browser_sessions
from authsvc.api.schemas import IdPath, Moment, PageQuery, PageView, Text, View, noun, render_page
from authsvc.web.request_context import actor, session_lifetime

blueprint = noun("sessions", "Browsers that are signed in at the administrator's page")


class SessionQuery(PageQuery):
    username: Text = Field("", max_length=255, description="only this user's sessions")


class SessionView(View):
    """A browser that is signed in."""

    id: str
    username: str
    created_at: Moment
    last_seen: Moment
    expires_at: Moment
    address: str | None
    browser: str
    by_token: bool
    signed_in_by: str = Field(description="password, token, oidc or ldap")


class SessionPage(PageView[SessionView]):
    pass


@blueprint.get("/sessions", responses={200: SessionPage})
def list_sessions(query: SessionQuery) -> dict[str, Any]:
    """List the running sessions, latest use first."""
    found = browser_sessions.search(query.username, session_lifetime(), query.page, query.per_page)
    return render_page(found, map(SessionView.of, found.items))


@blueprint.delete("/sessions/<id>", responses={204: None})
def end_session(path: IdPath) -> Response:
    """End a session, effective with the next request of its browser."""
    browser_sessions.end(actor(), path.id)
    return Response(status=204)

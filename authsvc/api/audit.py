"""The audit trail over REST."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from authsvc.activity import audit
from authsvc.api.schemas import Moment, PageQuery, PageView, Text, Time, View, noun, render_page

blueprint = noun("audit", "Who changed what, and when")


class AuditQuery(PageQuery):
    actor: Text = Field("", max_length=200, description="such as admin")
    action: Text = Field("", max_length=200, description="such as user.create")
    target: Text = Field("", max_length=200, description="such as user:press-7")
    since: Time | None = Field(None, description="only events at this time or later")
    until: Time | None = Field(None, description="only events before this time")
    sort: Literal["at", "-at"] = Field("-at", description="by time; - means newest first")

    def wanted(self) -> audit.EventFilter:
        return audit.EventFilter(self.actor, self.action, self.target, self.since, self.until)


class EventView(View):
    """A change; `before` and `after` have the fields that differ, without secrets."""

    id: int
    at: Moment
    actor: str
    via: str
    address: str | None
    request_id: str | None
    action: str
    target: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class EventPage(PageView[EventView]):
    pass


@blueprint.get("/audit", responses={200: EventPage})
def list_events(query: AuditQuery) -> dict[str, Any]:
    """List changes, newest first."""
    found = audit.events(query.wanted(), query.page, query.per_page, oldest_first=query.sort == "at")
    return render_page(found, map(EventView.of, found.items))

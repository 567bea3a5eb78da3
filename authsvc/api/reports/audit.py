"""The audit trail over REST."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from authsvc.activity import audit
from authsvc.api.schemas import Moment, PageQuery, PageView, Text, TimeInQuery, View, noun, render_page, sort_schema

_Sort = Literal["at", "-at"]

blueprint = noun("audit", "Who changed what, and when")


class AuditQuery(PageQuery):
    """Filters are exact; one that ends in `*` matches the beginning, as in `user.*`."""

    actor: Text = Field("", max_length=200, description="such as admin")
    action: Text = Field("", max_length=200, description="such as user.create or user.*")
    target: Text = Field("", max_length=300, description="such as user:press-7 or user:press-*")
    after: TimeInQuery | None = Field(None, description="at this time or later; RFC 3339, in UTC without an offset")
    before: TimeInQuery | None = Field(None, description="before this time; RFC 3339, in UTC without an offset")

    sort: Annotated[_Sort, sort_schema(_Sort)] = Field("-at", description="by time; with - in front, newest first")

    def wanted(self) -> audit.AuditFilter:
        return audit.AuditFilter(self.actor, self.action, self.target, self.after, self.before)


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
def list_audit_events(query: AuditQuery) -> dict[str, Any]:
    """List changes, newest first unless `sort` says otherwise."""
    found = audit.events(query.page, query.per_page, query.wanted(), oldest_first=query.sort == "at")
    return render_page(found, map(EventView.of, found.items))

"""Recent denials of all users over REST, and the form of a denial."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from authsvc.activity import denials
from authsvc.api.schemas import (
    Moment,
    PageView,
    PermissionView,
    SearchQuery,
    Text,
    TimeInQuery,
    View,
    noun,
    render_page,
)
from authsvc.policy.decision import Reason  # noqa: TC001 - pydantic reads it

blueprint = noun("denials", "What users were denied in the last 7 days, and how to allow it")


class DenialQuery(SearchQuery):
    search: Text = Field("", max_length=200, description="part of a username, client id or topic")
    username: Text = Field("", max_length=255, description="only denials of this user")
    reason: Reason | None = Field(None, description="only denials for this reason")
    kind: Literal["login", "topic"] | None = Field(None, description="only denied logins, or only denied topics")
    after: TimeInQuery | None = Field(None, description="last seen at this time or later; RFC 3339")
    before: TimeInQuery | None = Field(None, description="last seen before this time; RFC 3339")

    def wanted(self) -> denials.DenialFilter:
        return denials.DenialFilter(
            self.username, self.search, self.reason or "", self.kind or "", self.after, self.before
        )


class DenialView(View):
    """A denied login or access to a topic, and the narrowest permission that would allow it.

    `clientId` is the latest one. A topic that ends in an ellipsis is longer than the stored beginning.
    """

    client_id: str
    topic: str | None
    operation: Literal["login", "read", "write", "readWrite", "subscribe"]
    reason: str
    count: int
    first_seen: Moment
    last_seen: Moment
    suggested_permission: PermissionView | None
    advice: str


class DenialList(View):
    items: list[DenialView]


class UserDenialView(DenialView):
    """A denial and the user that it concerns."""

    username: str


class DenialPage(PageView[UserDenialView]):
    pass


@blueprint.get("/denials", responses={200: DenialPage})
def list_denials(query: DenialQuery) -> dict[str, Any]:
    """List what the clients of all users were denied in the last 7 days, latest first, and how to allow each."""
    found = denials.search(query.wanted(), query.page, query.per_page)
    return render_page(found, map(_view_of_user, found.items))


def _view_of_user(record: denials.DenialRecord) -> UserDenialView:
    return UserDenialView.of(record, username=record.denial.username, **_fields(record))


def view_denial(record: denials.DenialRecord) -> DenialView:
    return DenialView.of(record, **_fields(record))


def _fields(record: denials.DenialRecord) -> dict[str, Any]:
    denial, advice = record.denial, record.advice
    return {
        "client_id": denial.client_id,
        "topic": record.topic,
        "operation": record.operation,
        "reason": denial.reason,
        "suggested_permission": advice.permission,
        "advice": advice.note,
    }

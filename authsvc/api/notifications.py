"""Notifications over REST: list, create, show, change, delete, their deliveries, and a test."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from flask import Response
from pydantic import Field

from authsvc.api.schemas import (
    WITH_ETAG,
    Answer,
    Body,
    IdPath,
    IfMatch,
    Moment,
    PageQuery,
    PageView,
    SearchQuery,
    Text,
    View,
    noun,
    render,
    render_page,
    tagged,
    unchanged,
)
from authsvc.notifications import outbox, subscriptions, targets
from authsvc.web.request_context import actor, services

blueprint = noun("notifications", "Webhooks and mails about events")

EventName = Literal[
    "registration.pending",
    "registration.granted",
    "registration.denied",
    "certificate.expiring",
    "certificate.revoked",
    "login.throttled",
    "authority.expiring",
]
Name = Annotated[Text, Field(min_length=1, max_length=subscriptions.MAX_NAME, examples=["operators"])]
Url = Annotated[
    Text,
    Field(
        min_length=1,
        max_length=targets.MAX_URL,
        description="`https://...` or `http://...` for a webhook, `mailto:...` for a mail",
        examples=["https://hooks.example.com/authsvc", "mailto:operator@plant.example"],
    ),
]
Events = Annotated[list[EventName], Field(min_length=1, max_length=100)]


class NotificationChangeBody(Body):
    """The fields to change; an absent field keeps its value."""

    name: Name = unchanged()
    url: Url = unchanged()
    events: Events = unchanged()
    enabled: bool = unchanged("while false, events are ignored and nothing is sent")

    def changes(self) -> subscriptions.NotificationChanges:
        """Return the fields that the request has."""
        return cast("subscriptions.NotificationChanges", self.given(subscriptions.NotificationChanges))


class NotificationBody(NotificationChangeBody):
    """A new notification."""

    name: Name
    url: Url
    events: Events
    enabled: bool = True


class NotificationView(View):
    """A notification without its secret."""

    model_config = WITH_ETAG
    id: str
    name: str
    url: str
    events: list[str]
    enabled: bool
    created_at: Moment
    updated_at: Moment


class NewNotificationView(NotificationView):
    """A new notification with the secret that signs its webhooks, which no later request returns; null for mail."""

    secret: str | None


class NotificationPage(PageView[NotificationView]):
    pass


class DeliveryQuery(PageQuery):
    status: Literal["pending", "delivered", "failed"] | None = None


class DeliveryView(View):
    """A message; `id` is its `webhook-id`. The status `failed` means that it was given up."""

    id: str
    event: str
    status: Literal["pending", "delivered", "failed"]
    attempts: int
    error: str | None = Field(description="why the last attempt failed")
    created_at: Moment
    next_attempt_at: Moment | None
    finished_at: Moment | None


class DeliveryPage(PageView[DeliveryView]):
    pass


@blueprint.get("/notifications", responses={200: NotificationPage})
def list_notifications(query: SearchQuery) -> dict[str, Any]:
    """List notifications, sorted by name."""
    found = subscriptions.search(query.search, query.page, query.per_page)
    return render_page(found, map(NotificationView.of, found.items))


@blueprint.post("/notifications", responses={201: NewNotificationView})
def create_notification(body: NotificationBody) -> Answer:
    """Create a notification; only this response has its secret."""
    created = subscriptions.create(actor(), body.name, body.url, body.events, services().settings, enabled=body.enabled)
    shown, _, headers = tagged(NewNotificationView.of(created.record, secret=created.secret), created.record.version)
    return shown, 201, headers | {"Location": f"/api/notifications/{created.record.id}"}


@blueprint.get("/notifications/<id>", responses={200: NotificationView})
def get_notification(path: IdPath) -> Answer:
    """Show a notification."""
    return _answer(subscriptions.get(path.id))


@blueprint.patch("/notifications/<id>", responses={200: NotificationView})
def update_notification(path: IdPath, body: NotificationChangeBody, header: IfMatch) -> Answer:
    """Change a notification; messages that are not delivered yet go to its new URL."""
    return _answer(subscriptions.change(actor(), path.id, body.changes(), services().settings, header.versions()))


@blueprint.delete("/notifications/<id>", responses={204: None})
def delete_notification(path: IdPath) -> Response:
    """Delete a notification and its messages."""
    subscriptions.delete(actor(), path.id)
    return Response(status=204)


@blueprint.get("/notifications/<id>/deliveries", responses={200: DeliveryPage})
def list_notification_deliveries(path: IdPath, query: DeliveryQuery) -> dict[str, Any]:
    """List the messages of the last days to a notification, newest first."""
    subscriptions.get(path.id)
    found = outbox.deliveries(path.id, query.status or "", query.page, query.per_page)
    return render_page(found, map(DeliveryView.of, found.items))


@blueprint.post("/notifications/<id>/test", responses={202: DeliveryView})
def test_notification(path: IdPath) -> tuple[dict[str, Any], int]:
    """Queue a test message, which is sent within a second; its delivery shows the result."""
    return render(DeliveryView.of(subscriptions.send_test(actor(), path.id))), 202


def _answer(record: subscriptions.NotificationRecord) -> Answer:
    return tagged(NotificationView.of(record), record.version)

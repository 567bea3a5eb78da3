"""Notifications: list, create, edit, enable, disable, test and delete, and their deliveries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Response, flash, request

from authsvc.admin.forms import expected_versions, validated, validated_query
from authsvc.admin.pages import (
    ApiCall,
    NavigationEntry,
    authorize_as,
    latest_audit_events,
    may_call,
    page_blueprint,
    polled,
    redirect_if_readable,
    render,
    require_read,
)
from authsvc.api.notifications import DeliveryQuery, NotificationBody, NotificationChangeBody
from authsvc.api.schemas import IdPath, SearchQuery
from authsvc.errors import AuthsvcError
from authsvc.notifications import outbox, subscriptions
from authsvc.notifications.outbox import EVENTS, Status
from authsvc.web.request_context import actor, services

if TYPE_CHECKING:
    from werkzeug.wrappers import Response as AnyResponse

blueprint = page_blueprint("notifications_page", __name__)
NAVIGATION = NavigationEntry(8, "Notifications", "notifications_page.list_", ApiCall("GET", "/api/notifications"))


@blueprint.before_request
def check_path() -> None:
    """Raise `InvalidInput` if the id in the path would be invalid in the API's path too."""
    if request.view_args:
        validated(IdPath, **request.view_args)


@blueprint.get("/notifications")
@authorize_as("GET", "/api/notifications")
def list_() -> Response:
    query, filters = validated_query(SearchQuery)
    found = subscriptions.search(query.search, query.page, query.per_page)
    return render("admin/notifications.html", found=found, query=query, keep=filters)


@blueprint.get("/new-notification")
@authorize_as("POST", "/api/notifications")
def new_form() -> Response:
    return _form("new", {"events": []})


@blueprint.post("/new-notification")
@authorize_as("POST", "/api/notifications")
def create() -> AnyResponse:
    """Create a notification, and show the secret of a webhook in this response only."""
    fields = _submitted_fields()
    try:
        body = validated(NotificationBody, **fields)
        created = subscriptions.create(actor(), body.name, body.url, body.events, services().settings)
    except AuthsvcError as error:
        return _form("new", fields, error)
    if created.secret:
        return render("admin/notification_created.html", 201, created=created)
    flash(f"The notification {body.name} was created. Send a test message to check it.")
    return _redirect_to_notification(created.record.id)


@blueprint.get("/notifications/<id>")
@authorize_as("GET", "/api/notifications/{id}")
def show(id: str) -> Response:  # noqa: A002 - the name in the API's path
    query, filters = validated_query(DeliveryQuery)
    record = subscriptions.get(id)
    return render(
        "admin/notification.html",
        one=record,
        events=latest_audit_events(f"notification:{record.name}"),
        query=query,
        keep=filters,
        found=_deliveries(id, query),
    )


@blueprint.get("/notifications/<id>/deliveries")
@authorize_as("GET", "/api/notifications/{id}/deliveries")
@polled
def deliveries(id: str) -> Response:  # noqa: A002
    """Render the table of deliveries, which an open page reloads."""
    query, filters = validated_query(DeliveryQuery)
    return render("admin/deliveries.html", query=query, keep=filters, found=_deliveries(id, query))


@blueprint.get("/notifications/<id>/edit")
@authorize_as("PATCH", "/api/notifications/{id}")
def edit_form(id: str) -> Response:  # noqa: A002
    require_read(f"/api/notifications/{id}")
    record = subscriptions.get(id)
    fields = {"name": record.name, "url": record.url, "events": record.events}
    return _form("edit", fields, one=record, version=record.version)


@blueprint.post("/notifications/<id>/edit")
@authorize_as("PATCH", "/api/notifications/{id}")
def change(id: str) -> AnyResponse:  # noqa: A002
    """Save the submitted form, unless the notification was changed after the form was rendered."""
    fields, version = _submitted_fields(), request.form.get("updated", "")
    try:
        body = validated(NotificationChangeBody, **fields)
        subscriptions.change(actor(), id, body.changes(), services().settings, expected_versions(version))
    except AuthsvcError as error:
        require_read(f"/api/notifications/{id}")
        return _form("edit", fields, error, one=subscriptions.get(id), version=version)
    flash(f"The notification {body.name} was changed.")
    return _redirect_to_notification(id)


@blueprint.post("/notifications/<id>/switch")
@authorize_as("PATCH", "/api/notifications/{id}")
def switch(id: str) -> AnyResponse:  # noqa: A002
    """Enable or disable the notification."""
    enabled = request.form.get("enabled") == "yes"
    record = subscriptions.change(actor(), id, {"enabled": enabled}, services().settings)
    flash(f"The notification {record.name} was {'enabled' if enabled else 'disabled'}.")
    return _redirect_to_notification(id)


@blueprint.post("/notifications/<id>/test")
@authorize_as("POST", "/api/notifications/{id}/test")
def send_test(id: str) -> AnyResponse:  # noqa: A002
    """Send a test message, and wait up to 5 s for its result."""
    delivery = subscriptions.wait_for_attempt(subscriptions.send_test(actor(), id))
    if delivery.error is not None:
        flash(f"The test message was not delivered: {delivery.error}.", "wrong")
    elif delivery.status == Status.DELIVERED:
        flash("The test message was delivered.")
    else:
        flash("The test message has not been sent within 5 seconds.", "warn")
    return _redirect_to_notification(id)


@blueprint.post("/notifications/<id>/delete")
@authorize_as("DELETE", "/api/notifications/{id}")
def delete(id: str) -> AnyResponse:  # noqa: A002
    subscriptions.delete(actor(), id)
    flash("The notification was deleted.")
    return redirect_if_readable("/api/notifications", "notifications_page.list_")


def _deliveries(notification_id: str, query: DeliveryQuery) -> Any:
    """Return a page of deliveries; None if the user may not read them."""
    if not may_call("GET", f"/api/notifications/{notification_id}/deliveries"):
        return None
    return outbox.deliveries(notification_id, query.status or "", query.page, query.per_page)


def _form(purpose: str, fields: dict[str, Any], error: AuthsvcError | None = None, **context: Any) -> Response:
    template = f"admin/notification_{purpose}.html"
    can_mail = services().settings.smtp_url is not None
    return render(template, error=error, fields=fields, all_events=EVENTS, can_mail=can_mail, **context)


def _redirect_to_notification(notification_id: str) -> AnyResponse:
    return redirect_if_readable(f"/api/notifications/{notification_id}", "notifications_page.show", id=notification_id)


def _submitted_fields() -> dict[str, Any]:
    form = request.form
    return {
        "name": form.get("name", "").strip(),
        "url": form.get("url", "").strip(),
        "events": form.getlist("events"),
    }

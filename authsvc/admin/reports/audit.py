"""The audit trail: list and export."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from authsvc.activity import audit
from authsvc.admin.forms import validated_query
from authsvc.admin.pages import ApiCall, NavigationEntry, authorize_as, page_blueprint, render
from authsvc.api.reports.audit import AuditQuery, EventView
from authsvc.record_json import rfc3339
from authsvc.web.exports import csv_file, json_file

if TYPE_CHECKING:
    from flask import Response

    from authsvc.activity.audit import Event

blueprint = page_blueprint("audit_page", __name__)
NAVIGATION = NavigationEntry(9, "Audit", "audit_page.list_", ApiCall("GET", "/api/audit"))

_COLUMNS = ("id", "at", "actor", "via", "address", "requestId", "action", "target", "before", "after")


@blueprint.get("/audit")
@authorize_as("GET", "/api/audit")
def list_() -> Response:
    """List changes, newest first, with a form to filter them."""
    query, filters = validated_query(AuditQuery)
    actions = audit.actions()
    return render(
        "admin/audit.html",
        found=audit.events(query.page, query.per_page, query.wanted()),
        query=query,
        keep=filters,
        filters={name: value for name, value in filters.items() if name != "perPage"},
        actions=actions,
        groups=sorted({f"{name.partition('.')[0]}.*" for name in actions}),
        max_exported=audit.MAX_EXPORTED,
    )


@blueprint.get("/audit.csv")
@authorize_as("GET", "/api/audit")
def export_csv() -> Response:
    """Export the changes that match, newest first."""
    query, _ = validated_query(AuditQuery)
    return csv_file("audit.csv", _COLUMNS, map(_row, audit.export(query.wanted())))


@blueprint.get("/audit.json")
@authorize_as("GET", "/api/audit")
def export_json() -> Response:
    """Export the changes that match in the form of the API, newest first."""
    query, _ = validated_query(AuditQuery)
    return json_file("audit.json", map(_item, audit.export(query.wanted())), audit.MAX_EXPORTED)


def _row(event: Event) -> tuple[str, ...]:
    before, after = (
        json.dumps(values, ensure_ascii=False) if values is not None else "" for values in (event.before, event.after)
    )
    who = (event.actor, event.via, event.address or "", event.request_id or "")
    return (str(event.id), rfc3339(event.at), *who, event.action, event.target, before, after)


def _item(event: Event) -> dict[str, Any]:
    return EventView.of(event).model_dump(mode="json", by_alias=True)

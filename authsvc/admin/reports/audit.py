"""The audit trail: list and export."""

from __future__ import annotations

from typing import TYPE_CHECKING

from authsvc.activity import audit
from authsvc.admin.forms import validated_query
from authsvc.admin.pages import ApiCall, NavigationEntry, authorize_as, page_blueprint, render
from authsvc.api.reports.audit import AuditQuery
from authsvc.exports.rows import AUDIT_COLUMNS, of_audit_event
from authsvc.record_json import json_fields
from authsvc.web.exports import csv_file, json_file

if TYPE_CHECKING:
    from flask import Response

blueprint = page_blueprint("audit_page", __name__)
NAVIGATION = NavigationEntry(9, "Audit", "audit_page.list_", ApiCall("GET", "/api/audit"))


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
    return csv_file("audit.csv", AUDIT_COLUMNS, map(of_audit_event, audit.export(query.wanted())))


@blueprint.get("/audit.json")
@authorize_as("GET", "/api/audit")
def export_json() -> Response:
    """Export the changes that match in the form of the API, newest first."""
    query, _ = validated_query(AuditQuery)
    return json_file("audit.json", map(json_fields, audit.export(query.wanted())), audit.MAX_EXPORTED)

"""The state of the service."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from authsvc.admin.pages import ApiCall, NavigationEntry, authorize_as, page_blueprint, render
from authsvc.web.request_context import services
from authsvc.web.status import status_here

if TYPE_CHECKING:
    from flask import Response

blueprint = page_blueprint("status_page", __name__)
NAVIGATION = NavigationEntry(10, "Status", "status_page.show", ApiCall("GET", "/api/status"))

_SOON = timedelta(days=30)


@blueprint.get("/status")
@authorize_as("GET", "/api/status")
def show() -> Response:
    """Show versions, database, policy, authorities, listeners, brokers and settings."""
    return render("admin/status.html", service=status_here(services()), soon=datetime.now(UTC) + _SOON)

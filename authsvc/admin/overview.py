"""The overview: counts, charts and the state of database and policy."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from flask import current_app, request, url_for

from authsvc.accounts.overview import EXPIRING_DAYS, overview
from authsvc.activity import decision_stats
from authsvc.admin.pages import (
    TILES,
    ApiCall,
    NavigationEntry,
    Tile,
    authorize_as,
    may_call,
    page_blueprint,
    polled,
    redirect_to,
    render,
)
from authsvc.admin.reports.plots import Series, plot
from authsvc.record_json import rfc3339
from authsvc.web.redirects import path_on_this_host
from authsvc.web.request_context import services

if TYPE_CHECKING:
    from flask import Response
    from werkzeug.wrappers import Response as AnyResponse

    from authsvc.accounts.overview import Overview

blueprint = page_blueprint("overview", __name__)
NAVIGATION = NavigationEntry(1, "Overview", "overview.show", ApiCall("GET", "/api/me"))

_HOURS = 24
_STALE_SECONDS = 5


@blueprint.get("")
@authorize_as("GET", "/api/me")
def show() -> AnyResponse:
    """Show the overview, or redirect to the path in the query parameter `redirect`."""
    wanted = request.args.get("redirect")
    if wanted is not None:
        return redirect_to(path_on_this_host(wanted))
    found = overview(services().policy)
    return render("admin/overview.html", overview=found, tiles=_tiles(found), expiring_days=EXPIRING_DAYS)


@blueprint.get("/history")
@authorize_as("GET", "/api/history")
@polled
def plots() -> Response:
    """Render the charts of logins and denied topics over the last 24 hours."""
    buckets = decision_stats.last_hours(_HOURS)
    users = url_for("users_page.list_", sort="-lastSeen") if may_call("GET", "/api/users") else None
    allowed = Series("allowed", [one.logins for one in buckets], url=users)
    refused = Series("denied", [one.denied_logins for one in buckets], bad=True, url=_denials("login"))
    denied = Series("denied", [one.denials for one in buckets], bad=True, url=_denials("topic"))
    drawn = [("Logins", plot([allowed, refused])), ("Denied topics", plot([denied]))]
    return render("admin/history.html", plots=drawn, bucket_minutes=decision_stats.BUCKET // timedelta(minutes=1))


def _denials(kind: str) -> str | None:
    """Return the URL of the denials in the time of the charts, None if the user may not read them."""
    if not may_call("GET", "/api/denials"):
        return None
    return url_for("denials_page.list_", kind=kind, after=rfc3339(datetime.now(UTC) - timedelta(hours=_HOURS)))


def _tiles(found: Overview) -> list[Tile]:
    tiles = [draw() for call, draw in current_app.extensions.get(TILES, []) if may_call(*call)]
    if may_call("GET", "/api/users"):
        tiles.append(Tile("Users", f"{found.users:,}", "/admin/users"))
        if found.administrators_on_broker:
            label, url = "Administrators that may log in to the broker", "/admin/users?administratorOnBroker=true"
            tiles.append(Tile(label, f"{found.administrators_on_broker:,}", url, "warn"))
    if found.expiring is not None and may_call("GET", "/api/certificates"):
        label = f"Certificates expiring within {EXPIRING_DAYS} days"
        url = f"/admin/certificates?expiringWithinDays={EXPIRING_DAYS}"
        tiles.append(Tile(label, f"{found.expiring:,}", url, "warn" if found.expiring else ""))
    status = "/admin/status" if may_call("GET", "/api/status") else None
    if found.database_answers:
        tiles.append(Tile(found.database, "reachable", status))
    else:
        tiles.append(Tile(found.database, "unreachable", status, "bad"))
    stale = "" if found.policy_age < _STALE_SECONDS else "bad"
    tiles.append(Tile("Age of the policy in memory", f"{found.policy_age:.1f} s", status, stale))
    return tiles

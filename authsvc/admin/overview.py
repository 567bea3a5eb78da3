"""The first page: how things stand."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from flask import current_app, request

from authsvc.accounts.overview import EXPIRING_DAYS, overview
from authsvc.activity import decision_stats
from authsvc.admin.pages import TILES, ApiCall, NavigationEntry, Tile, may, pages, render, see, stands_for, unattended
from authsvc.admin.plots import Series, plot
from authsvc.admin.redirects import path_on_this_host
from authsvc.web.request_context import services

if TYPE_CHECKING:
    from flask import Response
    from werkzeug.wrappers import Response as AnyResponse

    from authsvc.accounts.overview import Overview

blueprint = pages("overview", __name__)
NAVIGATION = NavigationEntry(1, "Overview", "overview.show", ApiCall("GET", "/api/me"))

_HOURS = 24
_STALE_SECONDS = 5


@blueprint.get("")
@stands_for("GET", "/api/me")
def show() -> AnyResponse:
    """Show how things stand, or lead on to where the address asks for."""
    wanted = request.args.get("redirect")
    if wanted is not None:
        return see(path_on_this_host(wanted))
    facts = overview(services().policy)
    return render("admin/overview.html", facts=facts, tiles=_tiles(facts), expiring_days=EXPIRING_DAYS)


@blueprint.get("/history")
@stands_for("GET", "/api/history")
@unattended
def plots() -> Response:
    """Draw logins and denials over the last hours."""
    buckets = decision_stats.last_hours(_HOURS)
    let_in = Series("let in", [one.logins for one in buckets])
    refused = Series("refused", [one.denied_logins for one in buckets], bad=True)
    denied = Series("denied", [one.denials for one in buckets], bad=True)
    drawn = [("Logins", plot([let_in, refused])), ("Denied topics", plot([denied]))]
    return render("admin/history.html", plots=drawn, bucket_minutes=decision_stats.BUCKET // timedelta(minutes=1))


def _tiles(facts: Overview) -> list[Tile]:
    calls = current_app.extensions.get(TILES, [])
    tiles = [draw() for call, draw in calls if may(*call)]
    if may("GET", "/api/users"):
        tiles.append(Tile("Users", f"{facts.users:,}", "/admin/users"))
        if facts.administrators_on_broker:
            where = "/admin/users?administratorOnBroker=true"
            tiles.append(
                Tile(
                    "Administrators that may log in to the broker", f"{facts.administrators_on_broker:,}", where, "warn"
                )
            )
    if facts.expiring is not None and may("GET", "/api/certificates"):
        where = f"/admin/certificates?expiringWithinDays={EXPIRING_DAYS}"
        kind = "warn" if facts.expiring else ""
        tiles.append(Tile(f"Certificates expiring in {EXPIRING_DAYS} days", f"{facts.expiring:,}", where, kind))
    database = ("reachable", "") if facts.database_answers else ("lost", "bad")
    age = "" if facts.policy_age < _STALE_SECONDS else "bad"
    tiles.append(Tile(facts.database, database[0], kind=database[1]))
    tiles.append(Tile("Age of the policy in memory", f"{facts.policy_age:.1f} s", kind=age))
    return tiles

"""Recent denials of all users."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import url_for

from authsvc.activity import denials
from authsvc.admin.forms import validated_query
from authsvc.admin.pages import ApiCall, NavigationEntry, authorize_as, page_blueprint, render
from authsvc.admin.why import DENIAL_CONTEXT
from authsvc.api.reports.denials import DenialQuery

if TYPE_CHECKING:
    from flask import Response

blueprint = page_blueprint("denials_page", __name__)
NAVIGATION = NavigationEntry(8, "Denials", "denials_page.list_", ApiCall("GET", "/api/denials"))


@blueprint.get("/denials")
@authorize_as("GET", "/api/denials")
def list_() -> Response:
    """List denials, the latest first, each with the permission or other change that would allow it."""
    query, filters = validated_query(DenialQuery)
    return render(
        "admin/all_denials.html",
        found=denials.search(query.wanted(), query.page, query.per_page),
        query=query,
        keep=filters,
        here=url_for("denials_page.list_", **filters, page=str(query.page)),  # type: ignore[arg-type]
        per_user=denials.PER_USER,
        **DENIAL_CONTEXT,
    )

"""The pages of the Client Registry: lock, registrations, preauthorizations, enrolment keys, refused names.

Parts of the pages are polled. The browser sends the content hash of what it shows, and the answer is 204 if the content
is the same.
"""

from __future__ import annotations

from authsvc.admin.pages import ApiCall, NavigationEntry, Tile, page_blueprint
from registry import records
from registry.admin import keys, lock, matching, preauthorizations, refused_names, registrations, selection

blueprint = page_blueprint("registry_page", __name__, template_folder="templates")
NAVIGATION = NavigationEntry(
    2,
    "Client Registry",
    "registry_page.lock.show",
    ApiCall("GET", "/api/client-registry"),
    records.count_pending_or_none,
)
for part in (lock, registrations, selection, matching, preauthorizations, keys, refused_names):
    blueprint.register_blueprint(part.blueprint)


def pending_tile() -> Tile:
    """Return the number of pending registrations for the overview."""
    pending = records.count_pending()
    return Tile("Pending registrations", f"{pending:,}", "/admin/registry", "warn" if pending else "")

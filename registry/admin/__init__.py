"""The Client Registry's pages: the lock, who stands before it, and who is expected.

What is polled comes back as 204 while it is what the browser has already, which it says by the mark it was given.
"""

from __future__ import annotations

from authsvc.admin.pages import ApiCall, NavigationEntry, Tile, page_blueprint
from registry import records
from registry.admin import keys, lock, matching, preauthorizations, registrations, selection

blueprint = page_blueprint("registry_page", __name__, template_folder="templates")
NAVIGATION = NavigationEntry(2, "Client Registry", "registry_page.lock.show", ApiCall("GET", "/api/client-registry"))
for part in (lock, registrations, selection, matching, preauthorizations, keys):
    blueprint.register_blueprint(part.blueprint)


def pending_tile() -> Tile:
    """Return how many wait for a decision, for the overview."""
    pending = records.count_pending()
    return Tile("Pending registrations", f"{pending:,}", "/admin/registry", "warn" if pending else "")

"""Which registrations are looked at, said by the address, so that it is the same after every click."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flask import Response, g, request, url_for

from authsvc.admin.forms import validated
from registry import records
from registry.api import schemas

if TYPE_CHECKING:
    from authsvc.storage.paging import Page

ALL = "all"
STATUSES = {"pending": "Pending", "granted": "Granted", "denied": "Denied", "expired": "Expired", ALL: "All"}


@dataclass(frozen=True, slots=True)
class Listed:
    """One page of the table, and what leads to it."""

    found: Page[records.Record]
    status: str
    search: str

    @property
    def mark(self) -> str:
        """What changes when anything in the table does."""
        return mark_of(self.found)

    @property
    def where(self) -> dict[str, Any]:
        """What an address must say to lead to it."""
        return where()


def listed() -> Listed:
    """Return what the address asks for: those that wait for a decision, unless it says otherwise."""
    status = request.args.get("status", "pending")
    query = validated(
        schemas.RegistrationQuery,
        status=None if status == ALL else status,
        search=request.args.get("search", ""),
        page=request.args.get("page", "1"),
    )
    return Listed(records.search(query.status or "", query.search, query.page, query.per_page), status, query.search)


def where() -> dict[str, Any]:
    """Return what of the address says which registrations are looked at."""
    return {name: request.args[name] for name in ("status", "search", "page") if request.args.get(name)}


def back() -> str:
    """Return the address of the page that leads to what is looked at."""
    return url_for("registry_page.lock.show", **where())


def mark_of(shown: Any) -> str:
    """Return a short text that is another one for anything else that is shown."""
    return hashlib.sha256(repr(shown).encode("utf-8", "backslashreplace")).hexdigest()[:16]


def is_seen(mark: str) -> bool:
    """Say whether the browser that asks has that already."""
    return request.args.get("seen") == mark


def unchanged() -> Response:
    """Answer that nothing is new, which is not worth a line in the log every two seconds."""
    g.quiet = True
    return Response(status=204)

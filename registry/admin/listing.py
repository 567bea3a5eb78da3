"""The list of registrations that the URL selects by status, search text and page."""

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
class Listing:
    """One page of registrations and the status and search text that select it."""

    found: Page[records.RegistrationRecord]
    status: str
    search: str

    @property
    def content_hash(self) -> str:
        return content_hash(self.found)

    @property
    def query(self) -> dict[str, Any]:
        return list_query()


def listing() -> Listing:
    """Return the registrations that the URL selects; pending ones by default."""
    status = request.args.get("status", "pending")
    query = validated(
        schemas.RegistrationQuery,
        status=None if status == ALL else status,
        search=request.args.get("search", ""),
        page=request.args.get("page", "1"),
        perPage=request.args.get("perPage", "50"),
    )
    return Listing(records.search(query.wanted(), query.page, query.per_page), status, query.search)


def list_query() -> dict[str, Any]:
    """Return the query parameters of the URL that select the list."""
    return {name: request.args[name] for name in ("status", "search", "page", "perPage") if request.args.get(name)}


def list_url() -> str:
    """Return the URL of the list from which this request was made."""
    return url_for("registry_page.lock.show", **list_query())


def content_hash(content: Any) -> str:
    """Return a short hash that tells whether a polled part of the page has changed."""
    return hashlib.sha256(repr(content).encode("utf-8", "backslashreplace")).hexdigest()[:16]


def is_shown(current_hash: str) -> bool:
    """Return whether the browser already shows the content with this hash."""
    return request.args.get("seen") == current_hash


def unchanged() -> Response:
    """Return 204 without a log line, because pages poll every few seconds."""
    g.quiet = True
    return Response(status=204)

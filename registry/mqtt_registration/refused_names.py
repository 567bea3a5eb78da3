"""Usernames with which devices tried to connect and that cannot register: a bounded list with the reasons.

Each process notes them in memory and writes them every few seconds. The table holds the latest 200 names for 7 days.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from peewee import EXCLUDED

from authsvc.storage.database import database_time, session, transaction
from authsvc.storage.paging import Page, fetch_page
from registry.models import RefusedName

if TYPE_CHECKING:
    from datetime import datetime

MAX_NAMES = 200
KEPT = timedelta(days=7)
_MAX_NAME = 255
_MAX_CLIENT_ID = 200


@dataclass(frozen=True, slots=True)
class RefusedNameRecord:
    """A name, at most its first 255 characters, why it cannot register, and the client id of its last attempt."""

    name: str
    reason: str
    client_id: str
    attempts: int
    first_seen: datetime
    last_seen: datetime


@dataclass(slots=True)
class _Noted:
    reason: str
    client_id: str
    attempts: int = 0


class RefusedNames:
    """The refused names that this process has not written yet, at most `MAX_NAMES`."""

    def __init__(self) -> None:
        self._noted: dict[str, _Noted] = {}
        self._lock = threading.Lock()

    def note(self, username: str, reason: str, client_id: str) -> None:
        """Count an attempt; it returns at once. Further names are ignored while there are too many."""
        name = _storable(username, _MAX_NAME)
        with self._lock:
            if name in self._noted or len(self._noted) < MAX_NAMES:
                noted = self._noted.setdefault(name, _Noted(reason, ""))
                noted.client_id = _storable(client_id, _MAX_CLIENT_ID)
                noted.attempts += 1

    def store(self) -> None:
        """Write the names that were noted, and delete all but the latest."""
        with self._lock:
            noted, self._noted = self._noted, {}
        if not noted:
            return
        with transaction():
            now = database_time()
            rows: list[dict[str, Any]] = [
                {
                    "name": name,
                    "reason": one.reason,
                    "client_id": one.client_id,
                    "attempts": one.attempts,
                    "first_seen": now,
                    "last_seen": now,
                }
                for name, one in noted.items()
            ]
            changed = {
                RefusedName.reason: EXCLUDED.reason,
                RefusedName.client_id: EXCLUDED.client_id,
                RefusedName.attempts: RefusedName.attempts + EXCLUDED.attempts,
                RefusedName.last_seen: EXCLUDED.last_seen,
            }
            RefusedName.insert_many(rows).on_conflict(conflict_target=[RefusedName.name], update=changed).execute()
            latest = RefusedName.select(RefusedName.name).order_by(RefusedName.last_seen.desc(), RefusedName.name)
            kept = [row.name for row in latest.limit(MAX_NAMES)]
            RefusedName.delete().where(RefusedName.name.not_in(kept)).execute()


def search(page: int, per_page: int) -> Page[RefusedNameRecord]:
    """Return one page of the names, the latest attempt first."""
    with session():
        query = RefusedName.select().where(RefusedName.last_seen > database_time() - KEPT)
        ordered = query.order_by(RefusedName.last_seen.desc(), RefusedName.name)
        return fetch_page(ordered, page, per_page, convert=partial(map, _record))


def delete_expired() -> None:
    """Delete names without an attempt for 7 days."""
    with transaction():
        RefusedName.delete().where(RefusedName.last_seen <= database_time() - KEPT).execute()


def _storable(text: str, most: int) -> str:
    """Return the beginning of a text, with replacements for what a database cannot store."""
    return text[:most].replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _record(row: RefusedName) -> RefusedNameRecord:
    return RefusedNameRecord(row.name, row.reason, row.client_id, row.attempts, row.first_seen, row.last_seen)

"""The audit trail: who made each change, how and when, written in the transaction of the change."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from peewee import fn

from authsvc.storage.database import insert_rows, is_sqlite, session
from authsvc.storage.fields import UnreadableJson
from authsvc.storage.models import AuditEvent
from authsvc.storage.paging import Page, fetch_page

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from authsvc.policy.actors import Actor

Fields = dict[str, Any]

MAX_EXPORTED = 20_000
_BATCH = 500


@dataclass(frozen=True, slots=True)
class Event:
    """One change. `before` and `after` hold the changed values without secrets; None if there was or is nothing."""

    id: int
    at: datetime
    actor: str
    via: str
    address: str | None
    request_id: str | None
    action: str
    target: str
    before: Fields | None
    after: Fields | None


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """The events to list; an empty field matches all.

    `actor`, `action` and `target` are exact, or the beginning of a text if they end in `*`, as in `user.*`. `after` is
    the earliest time, `before` is later than the latest.
    """

    actor: str = ""
    action: str = ""
    target: str = ""
    after: datetime | None = None
    before: datetime | None = None


def record(actor: Actor, action: str, target: str, before: Fields | None = None, after: Fields | None = None) -> None:
    """Write one event. Call it inside the transaction of the change."""
    record_many(actor, action, [(target, before, after)])


def record_many(actor: Actor, action: str, changes: Iterable[tuple[str, Fields | None, Fields | None]]) -> None:
    """Write one event for each target that one change affects, given with its values before and after."""
    columns = _columns(actor, action)
    source = {"policyFile": actor.policy_file} if actor.policy_file else {}
    rows = (
        columns | {"target": target, "before": before, "after": source | (after or {}) or after}
        for target, before, after in changes
    )
    insert_rows(AuditEvent, rows)


def _columns(actor: Actor, action: str) -> Fields:
    return {
        "at": datetime.now(UTC),
        "actor": actor.username,
        "via": actor.via,
        "address": actor.address,
        "request_id": actor.request_id,
        "action": action,
    }


def events(page: int, per_page: int, wanted: AuditFilter, *, oldest_first: bool = False) -> Page[Event]:
    """Return one page of events, newest first unless `oldest_first`."""
    query = _matching(wanted).order_by(AuditEvent.id.asc() if oldest_first else AuditEvent.id.desc())
    return fetch_page(query, page, per_page, convert=partial(map, _event))


def export(wanted: AuditFilter) -> Iterator[Event]:
    """Yield up to `MAX_EXPORTED` events, newest first. They are read in batches, so that few are in memory at once."""
    left, oldest = MAX_EXPORTED, None
    while left > 0:
        query = _matching(wanted).order_by(AuditEvent.id.desc()).limit(min(left, _BATCH))
        with session():
            rows = list(query if oldest is None else query.where(AuditEvent.id < oldest))
        yield from map(_event, rows)
        left -= len(rows)
        if len(rows) < _BATCH:
            return
        oldest = rows[-1].id


def actions() -> list[str]:
    """Return the different actions of all events, sorted."""
    found: list[str] = []
    first = AuditEvent.select(fn.MIN(AuditEvent.action))
    with session():
        # One search in the index for each action; DISTINCT would read the whole index.
        while action := first.where(AuditEvent.action > (found[-1] if found else "")).scalar():
            found.append(action)
    return found


def targets_of(action: str, targets: Iterable[str], since: datetime) -> set[str]:
    """Return those of the targets that have an event of this action since then."""
    condition = AuditEvent.target.in_(list(targets)) & (AuditEvent.action == action) & (AuditEvent.at >= since)
    rows: Any = AuditEvent.select(AuditEvent.target).where(condition).distinct().tuples()
    return {target for (target,) in rows}


def difference(before: Fields, after: Fields) -> tuple[Fields, Fields]:
    """Return the differing values of two records; None for a field that one of them lacks."""
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    return {key: before.get(key) for key in changed}, {key: after.get(key) for key in changed}


def _matching(wanted: AuditFilter) -> Any:
    query = AuditEvent.select()
    for column in (AuditEvent.actor, AuditEvent.action, AuditEvent.target):
        text = getattr(wanted, column.name)
        if text:
            query = query.where(_begins_with(column, text[:-1]) if text.endswith("*") else column == text)
    if wanted.after is not None:
        query = query.where(AuditEvent.at >= wanted.after)
    if wanted.before is not None:
        query = query.where(AuditEvent.at < wanted.before)
    return query


def _begins_with(column: Any, prefix: str) -> Any:
    """Return a condition that is case-sensitive; SQLite uses the index of the column for it."""
    if is_sqlite():
        # No character sorts after U+10FFFF, so this range has exactly the texts that begin with the prefix.
        return (column >= prefix) & (column < prefix + chr(0x10FFFF))
    return fn.STARTS_WITH(column, prefix)


def _event(row: AuditEvent) -> Event:
    return Event(**row.__data__ | {"before": _readable(row.before), "after": _readable(row.after)})


def _readable(values: Fields | UnreadableJson | None) -> Fields | None:
    return {"damaged": True} if isinstance(values, UnreadableJson) else values

"""The audit trail: who made each change, how and when, written in the transaction of the change."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from peewee import chunked

from authsvc.storage.fields import UnreadableJson
from authsvc.storage.models import AuditEvent
from authsvc.storage.paging import Page, fetch_page

if TYPE_CHECKING:
    from collections.abc import Iterable

    from authsvc.policy.actors import Actor

Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class EventFilter:
    """The events to list; an empty field matches everything. `since` is inclusive, `until` is not."""

    actor: str = ""
    action: str = ""
    target: str = ""
    since: datetime | None = None
    until: datetime | None = None


EVERYTHING = EventFilter()


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


def record(actor: Actor, action: str, target: str, before: Fields | None = None, after: Fields | None = None) -> None:
    """Write one event. Call it inside the transaction of the change."""
    AuditEvent.create(**_columns(actor, action), target=target, before=before, after=after)


def record_many(actor: Actor, action: str, created: Iterable[tuple[str, Fields]]) -> None:
    """Write one event for each target that one change created, given with its values afterwards."""
    columns = _columns(actor, action) | {"before": None}
    for batch in chunked((columns | {"target": target, "after": after} for target, after in created), 200):
        AuditEvent.insert_many(batch).execute()


def _columns(actor: Actor, action: str) -> Fields:
    return {
        "at": datetime.now(UTC),
        "actor": actor.username,
        "via": actor.via,
        "address": actor.address,
        "request_id": actor.request_id,
        "action": action,
    }


def events(wanted: EventFilter, page: int, per_page: int, *, oldest_first: bool = False) -> Page[Event]:
    """Return one page of events, newest first unless `oldest_first`."""
    query = AuditEvent.select()
    for name in ("actor", "action", "target"):
        value = getattr(wanted, name)
        if value:
            query = query.where(getattr(AuditEvent, name) == value)
    if wanted.since:
        query = query.where(AuditEvent.at >= wanted.since)
    if wanted.until:
        query = query.where(AuditEvent.at < wanted.until)
    order = AuditEvent.id.asc() if oldest_first else AuditEvent.id.desc()
    return fetch_page(query.order_by(order), page, per_page, convert=partial(map, _event))


def targets_of(action: str, targets: Iterable[str], since: datetime) -> set[str]:
    """Return those of the targets that have an event of this action since then."""
    condition = AuditEvent.target.in_(list(targets)) & (AuditEvent.action == action) & (AuditEvent.at >= since)
    rows: Any = AuditEvent.select(AuditEvent.target).where(condition).distinct().tuples()
    return {target for (target,) in rows}


def difference(before: Fields, after: Fields) -> tuple[Fields, Fields]:
    """Return the differing values of two records; None for a field that one of them lacks."""
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    return {key: before.get(key) for key in changed}, {key: after.get(key) for key in changed}


def _event(row: AuditEvent) -> Event:
    return Event(**row.__data__ | {"before": _readable(row.before), "after": _readable(row.after)})


def _readable(values: Fields | UnreadableJson | None) -> Fields | None:
    return {"damaged": True} if isinstance(values, UnreadableJson) else values

"""The audit trail: every change with who, how and when, written in the transaction of the change itself."""

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
    from collections.abc import Iterable, Mapping

    from authsvc.policy.actors import Actor

Facts = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """One change. `before` and `after` hold what changed, without secrets; None where there was or is nothing."""

    id: int
    at: datetime
    actor: str
    via: str
    address: str | None
    request_id: str | None
    action: str
    target: str
    before: Facts | None
    after: Facts | None


def record(actor: Actor, action: str, target: str, before: Facts | None = None, after: Facts | None = None) -> None:
    """Write one event; to be called inside the transaction that makes the change."""
    AuditEvent.create(
        at=datetime.now(UTC),
        actor=actor.username,
        via=actor.via,
        address=actor.address,
        request_id=actor.request_id,
        action=action,
        target=target,
        before=before,
        after=after,
    )


def record_many(actor: Actor, action: str, made: Iterable[tuple[str, Facts]]) -> None:
    """`record` for many things that one change made, each a target with what holds for it afterwards."""
    common = {"at": datetime.now(UTC), "actor": actor.username, "via": actor.via, "action": action}
    common |= {"address": actor.address, "request_id": actor.request_id, "before": None}
    for batch in chunked([common | {"target": target, "after": after} for target, after in made], 200):
        AuditEvent.insert_many(batch).execute()


def events(page: int, per_page: int, filters: Mapping[str, str]) -> Page[Event]:
    """Return one page of events, newest first; `filters` may name `actor`, `action` and `target`, each to be equal."""
    query = AuditEvent.select()
    for name, value in filters.items():
        query = query.where(getattr(AuditEvent, name) == value)
    return fetch_page(query.order_by(AuditEvent.id.desc()), page, per_page, convert=partial(map, _event))


def targets_of(action: str, targets: Iterable[str], since: datetime) -> set[str]:
    """Return those of the targets to which an action was done since then."""
    chosen = AuditEvent.target.in_(list(targets)) & (AuditEvent.action == action) & (AuditEvent.at >= since)
    rows: Any = AuditEvent.select(AuditEvent.target).where(chosen).distinct().tuples()
    return {target for (target,) in rows}


def difference(before: Facts, after: Facts) -> tuple[Facts, Facts]:
    """Return the parts of two records that differ; None stands for a part that one of them lacks."""
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    return {key: before.get(key) for key in changed}, {key: after.get(key) for key in changed}


def _event(row: AuditEvent) -> Event:
    return Event(
        row.id,
        row.at,
        row.actor,
        row.via,
        row.address,
        row.request_id,
        row.action,
        row.target,
        _readable(row.before),
        _readable(row.after),
    )


def _readable(facts: Facts | UnreadableJson | None) -> Facts | None:
    return {"damaged": True} if isinstance(facts, UnreadableJson) else facts

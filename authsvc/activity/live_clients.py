"""The MQTT clients that are connected now, as the brokers with authsvc's own plugin report them.

A broker counts as live for 15 s after a report. The clients of a broker that is silent for longer are not shown: they
may have gone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from peewee import EXCLUDED, JOIN, chunked, fn

from authsvc.activity import audit, last_seen
from authsvc.activity.disconnects import DisconnectResult
from authsvc.errors import NotFound
from authsvc.storage.changes import ChangeKind, policy_change
from authsvc.storage.database import database_time, session, transaction
from authsvc.storage.models import Broker, LiveClient, User
from authsvc.storage.paging import Page, fetch_page, in_order

if TYPE_CHECKING:
    from collections.abc import Iterable

    from authsvc.policy.actors import Actor
    from authsvc.policy.broker_report import BrokerReport, ConnectedClient

LIVE_FOR = timedelta(seconds=15)
CONFIRMED_WITHIN_SECONDS = 2.0
_POLL_SECONDS = 0.05
_KEPT = timedelta(hours=1)
_BATCH = 200
_SEEN_AT_ONCE = 1000  # so that other writers of SQLite wait for milliseconds only
_DIGEST_BYTES = 8
_REPLACED = {
    field: getattr(EXCLUDED, field.column_name)
    for field in (
        *(LiveClient.username, LiveClient.client_id, LiveClient.address),
        *(LiveClient.protocol, LiveClient.since, LiveClient.credential),
    )
}


@dataclass(frozen=True, slots=True)
class LiveClientFilter:
    """The clients to list. `broker` and `username` are exact names, `text` is part of any text of a client.

    `connected_after` is inclusive, `connected_before` is not.
    """

    broker: str = ""
    username: str = ""
    text: str = ""
    credential: str = ""
    connected_after: datetime | None = None
    connected_before: datetime | None = None


ClientSort = Literal["connectedAt", "-connectedAt", "username", "-username", "clientId", "-clientId"]
_COLUMNS = {"connectedAt": LiveClient.since, "username": LiveClient.username, "clientId": LiveClient.client_id}


@dataclass(frozen=True, slots=True)
class LiveClientRecord:
    """A connected client. `credential` is what it logged in with: `password`, `token` or `certificate`."""

    broker: str
    client_id: str
    username: str
    address: str | None
    protocol: str
    connected_at: datetime
    credential: str


@dataclass(frozen=True, slots=True)
class BrokerRecord:
    """A broker that has reported in the last hour; `clients` is 0 if it is not live."""

    name: str
    plugin_version: str
    clients: int
    reported_at: datetime
    is_live: bool


class _Connection(NamedTuple):
    boot: str
    number: int
    broker: str
    username: str
    client_id: str


def store(report: BrokerReport) -> None:
    """Store what a broker reports, in one transaction; a repeated report changes nothing.

    A report of a greater generation than the stored one replaces all clients of this boot, one of an older generation
    is ignored. Raises database errors.
    """
    with transaction():
        if not _accept(report):
            return
        rows = {client.number: _columns(report.boot, client) for client in report.connected}
        for batch in chunked(rows.values(), _BATCH):
            query = LiveClient.insert_many(batch)
            query.on_conflict(conflict_target=[LiveClient.boot, LiveClient.number], update=_REPLACED).execute()
        last_seen.record({client.username for client in report.connected}, database_time())
        for numbers in chunked(report.disconnected, _BATCH):
            LiveClient.delete().where(LiveClient.boot == report.boot, LiveClient.number.in_(numbers)).execute()


def search(
    wanted: LiveClientFilter, page: int, per_page: int, sort: ClientSort = "-connectedAt"
) -> Page[LiveClientRecord]:
    """Return one page of the clients of all live brokers, the latest connection first unless `sort` says otherwise."""
    with session():
        query = in_order(_live(), sort, _COLUMNS, LiveClient.boot).order_by_extend(LiveClient.number.desc())
        if wanted.broker:
            query = query.where(Broker.name == wanted.broker)
        if wanted.username:
            query = query.where(LiveClient.username == wanted.username)
        if wanted.credential:
            query = query.where(LiveClient.credential == wanted.credential)
        if wanted.connected_after:
            query = query.where(LiveClient.since >= wanted.connected_after)
        if wanted.connected_before:
            query = query.where(LiveClient.since < wanted.connected_before)
        if wanted.text:
            columns = (LiveClient.username, LiveClient.client_id, LiveClient.address)
            username, client_id, address = (column.contains(wanted.text) for column in columns)
            query = query.where(username | client_id | address)
        return fetch_page(query, page, per_page, convert=partial(map, _record))


def brokers() -> list[BrokerRecord]:
    """Return the brokers that have reported in the last hour, sorted by name.

    A silent broker is left out if a broker of the same name has reported since: it was restarted.
    """
    with session():
        now = database_time()
        query = Broker.select(Broker, fn.COUNT(LiveClient.number).alias("count"))
        query = query.join(LiveClient, JOIN.LEFT_OUTER).group_by(Broker).order_by(Broker.reported_at.desc())
        rows: list[Any] = list(query.where(Broker.reported_at > now - _KEPT))
    found: list[BrokerRecord] = []
    for row in rows:
        is_live = row.reported_at > now - LIVE_FOR
        if is_live or row.name not in {each.name for each in found}:
            clients = row.count if is_live else 0
            found.append(BrokerRecord(row.name, row.plugin_version, clients, row.reported_at, is_live))
    return sorted(found, key=lambda each: each.name)


def disconnect(actor: Actor, broker: str, client_id: str) -> bool:
    """Have the broker's plugin end the connections of a client id, and return whether that happened within 2 s.

    `NotFound` if no such client is connected. A client that may connect can reconnect at once.
    """
    condition = (Broker.name == broker) & (LiveClient.client_id == client_id)
    found = _connections(condition)
    if not found:
        raise NotFound("no client with this client id is connected to this broker", "client-not-connected")
    _order(actor, found)
    return not _remaining(condition, found)


def disconnect_user(actor: Actor, username: str) -> DisconnectResult:
    """Have the plugins end all connections of a user, and return the result after at most 2 s.

    Both lists are empty if the user has no client at a broker with the plugin.
    """
    condition = LiveClient.username == username
    found = _connections(condition)
    if not found:
        return DisconnectResult([], [])
    _order(actor, found)
    failed = list(dict.fromkeys(each.client_id for each in _remaining(condition, found)))
    ended = dict.fromkeys(each.client_id for each in found)
    return DisconnectResult([client_id for client_id in ended if client_id not in failed], failed)


def record_seen() -> None:
    """Store that the users of connected clients are seen: a client that stays connected asks nothing for days."""
    last = ""
    while True:
        with transaction():
            now = database_time()
            query: Any = LiveClient.select(LiveClient.username).distinct().join(Broker)
            query = query.join(User, on=(User.username == LiveClient.username))
            query = query.where(Broker.reported_at > now - LIVE_FOR, LiveClient.username > last, last_seen.is_due(now))
            names = [name for (name,) in query.order_by(LiveClient.username).limit(_SEEN_AT_ONCE).tuples()]
            last_seen.record(names, now)
        if len(names) < _SEEN_AT_ONCE:
            return
        last = names[-1]


def delete_expired() -> None:
    """Delete the brokers that have not reported for an hour, and their clients."""
    with transaction():
        Broker.delete().where(Broker.reported_at < database_time() - _KEPT).execute()


def _accept(report: BrokerReport) -> bool:
    """Store the broker and return True, or return False if the report is older than the stored state."""
    now = database_time()
    is_this = Broker.boot == report.boot
    values = {
        "name": _bounded(report.name, Broker.name),
        "plugin_version": _bounded(report.plugin_version, Broker.plugin_version),
        "generation": report.generation,
        "reported_at": now,
    }
    query = Broker.insert(boot=report.boot, started_at=now, **values)
    # An update locks the row, so that two reports of one boot are stored one after the other.
    query.on_conflict(conflict_target=[Broker.boot], update={Broker.name: EXCLUDED.name}).execute()
    stored = Broker.select(Broker.generation).where(is_this).scalar()
    if report.generation < stored:
        return False
    if report.generation > stored:
        LiveClient.delete().where(LiveClient.boot == report.boot).execute()
    Broker.update(**values).where(is_this).execute()
    return True


def _columns(boot: str, client: ConnectedClient) -> dict[str, Any]:
    return {
        "boot": boot,
        "number": client.number,
        "username": _bounded(client.username, LiveClient.username),
        "client_id": _bounded(client.client_id, LiveClient.client_id),
        "address": client.address and _bounded(client.address, LiveClient.address),
        "protocol": _bounded(client.protocol, LiveClient.protocol),
        "since": client.since,
        "credential": _bounded(client.credential, LiveClient.credential),
    }


def _bounded(text: str, column: Any) -> str:
    """Return text that the column can hold. The end of a longer one becomes a digest, so that it stays unique."""
    storable = text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    if len(storable) <= column.max_length:
        return storable
    digest = hashlib.blake2b(storable.encode(), digest_size=_DIGEST_BYTES).hexdigest()
    return f"{storable[: column.max_length - len(digest) - 1]}…{digest}"


def _live() -> Any:
    """Return the query for the clients of live brokers."""
    is_live = Broker.reported_at > database_time() - LIVE_FOR
    return LiveClient.select(LiveClient, Broker).join(Broker).where(is_live)


def _connections(condition: Any) -> list[_Connection]:
    with session():
        return [
            _Connection(row.boot.boot, row.number, row.boot.name, row.username, row.client_id)
            for row in _live().where(condition).order_by(LiveClient.since.desc(), LiveClient.number.desc())
        ]


def _order(actor: Actor, connections: list[_Connection]) -> None:
    """Announce to the brokers' plugins which connections to end, with an audit event for each."""
    with policy_change() as announce:
        announce(ChangeKind.CLIENT, *(f"{each.boot}/{each.number}" for each in connections))
        audit.record_many(actor, "client.disconnect", map(_audited, connections))


def _audited(connection: _Connection) -> tuple[str, None, audit.Fields]:
    after = {"broker": connection.broker, "clientId": connection.client_id}
    return f"user:{connection.username}", None, after


def _remaining(condition: Any, connections: Iterable[_Connection]) -> list[_Connection]:
    """Wait until the brokers have reported the end of these connections, at most 2 s; return those that remain."""
    ordered = set(connections)
    deadline = monotonic() + CONFIRMED_WITHIN_SECONDS
    while (remaining := [each for each in _connections(condition) if each in ordered]) and monotonic() < deadline:
        sleep(_POLL_SECONDS)
    return remaining


def _record(row: LiveClient) -> LiveClientRecord:
    return LiveClientRecord(
        row.boot.name, row.client_id, row.username, row.address, row.protocol, row.since, row.credential
    )

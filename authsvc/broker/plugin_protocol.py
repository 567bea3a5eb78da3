"""Protocol 1 between authsvc's plugin for Mosquitto and the service: what is sent, and how requests are read.

The plugin decides by the rules of a user, so the service sends it each user's whole state. A request is read with
limits for each field; `MalformedRequest` names the wrong field and never contains its value.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from authsvc.addresses import normalize_address
from authsvc.errors import InvalidInput
from authsvc.policy.access import ACCESSES, READ, WRITE, active_user, requests_for
from authsvc.policy.broker_report import BrokerReport, ConnectedClient
from authsvc.policy.decision import Denied, Reason, denial_of
from authsvc.policy.permissions import Context
from authsvc.policy.snapshot import RolePolicy
from authsvc.policy.topics import Identity

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from authsvc.policy.decision import Denial
    from authsvc.policy.snapshot import CurrentPolicy, Snapshot, UserPolicy

PROTOCOL = 1
VERSION_HEADER = b"authsvc-plugin"
MAX_ENTRIES = 500
"""Entries in each list of a request, and names of each kind in a line of the change stream."""
MAX_BODY = 4 * 1024 * 1024
"""Bytes of a request's body."""
MAX_BROKER_NAME = 64

# Bytes that the plugin shortens names in a report to; no user has so long a name, but a certificate can.
_MAX_USERNAME = 1024
_MAX_WORD = 64
_MAX_ADDRESS = 256
_MAX_TEXT_BYTES = 65_535
_MAX_INTEGER = 2**53 - 1  # cJSON has only floating-point numbers
_MAX_TIME = 253_402_300_799  # the end of the year 9999
_MAX_CACHED_BYTES = 32 * 1024 * 1024
_BOOT = re.compile("[0-9A-Fa-f]{32}")
_CREDENTIALS = {"p": "password", "t": "token", "c": "certificate"}
_DENIED_ACCESSES = frozenset({0, *ACCESSES}) - {READ | WRITE}
_NO_ROLE = RolePolicy()


class MalformedRequest(Exception):
    """The request is not one that the plugin can send; the message is the name of the wrong field."""


# ---- The state of users ----


def user_state(snapshot: Snapshot, username: str, now: datetime) -> dict[str, Any]:
    """Return everything that the plugin needs to decide for a user: credentials, client ids, rules and roles."""
    active = active_user(snapshot, username)
    user = snapshot.users.get(username)
    refused = active.reason.value if isinstance(active, Denied) else None
    state: dict[str, Any] = {
        "username": username,
        "version": snapshot.revision,
        "refused": refused,
        "credentials": {},
        "clientIds": [],
        "rules": [],
        # Also for a refused user: the repair of a damaged role names the role only.
        "roles": list(user.roles) if user else [],
    }
    if user is None or refused:
        return state
    owners: list[UserPolicy | RolePolicy] = [user, *(snapshot.roles.get(role, _NO_ROLE) for role in user.roles)]
    rules = (str(rule) for owner in owners for rule in owner.permissions if rule.context is Context.MQTT)
    state["credentials"] = {
        name: None if until is None else int(until.timestamp()) for name, until in user.credentials_at(now).items()
    }
    state["clientIds"] = list(dict.fromkeys(pattern for owner in owners for pattern in owner.client_ids))
    state["rules"] = list(dict.fromkeys(rules))
    return state


class _Serialized(NamedTuple):
    generation: int
    user: object
    state: bytes


class UserStates:
    """The states of users as JSON. Those of users that logged in are cached until the policy changes, up to 32 MiB."""

    def __init__(self, policy: CurrentPolicy) -> None:
        self._policy = policy
        self._cached: dict[str, _Serialized] = {}
        self._bytes = 0

    @property
    def revision(self) -> int:
        """The revision of the current snapshot."""
        return self._policy.snapshot.revision

    def of(self, username: str) -> bytes:
        """Return the state of a user."""
        cached = self._cached.get(username)
        return cached.state if cached and self._is_current(cached, username) else self._serialize(username)

    def login_body(self, username: str, credential: str) -> bytes:
        """Return the body of the answer to an allowed login: the credential that was used, and the user's state."""
        cached = self._cached.get(username)
        if not cached or not self._is_current(cached, username):
            # Before the snapshot, so that a state is never cached for a later generation than its own.
            generation = self._policy.generation
            user = self._policy.snapshot.users.get(username)
            replaced = cached
            cached = _Serialized(generation, user, self._serialize(username))
            self._bytes += len(cached.state) - (len(replaced.state) if replaced else 0)
            if self._bytes > _MAX_CACHED_BYTES:
                self._cached, self._bytes = {}, len(cached.state)
            self._cached[username] = cached
        return b'{"ok":true,"error":"","credential":"%s","user":%s}' % (credential.encode(), cached.state)

    def _is_current(self, cached: _Serialized, username: str) -> bool:
        # A new API token replaces the user in the snapshot but does not change the generation.
        user = self._policy.snapshot.users.get(username)
        return cached.generation == self._policy.generation and cached.user is user

    def _serialize(self, username: str) -> bytes:
        return _json(user_state(self._policy.snapshot, username, datetime.now(UTC)))


# ---- The change stream ----


def first_line(revision: int, service: str) -> bytes:
    """Return the line with which a change stream begins."""
    return _line(protocol=PROTOCOL, version=revision, service=service)


def heartbeat_line(revision: int) -> bytes:
    """Return the line that says that nothing else has changed up to this revision."""
    return _line(version=revision)


def everything_line(revision: int) -> bytes:
    """Return the line after which the plugin asks for everything again."""
    return _line(version=revision, all=True)


def change_lines(revision: int, users: Iterable[str], roles: Iterable[str]) -> bytes:
    """Return lines that name these changed users and roles, up to 500 of each in a line."""
    lines = [_line(version=revision, users=batch) for batch in _batches(users)]
    lines += [_line(version=revision, roles=batch) for batch in _batches(roles)]
    return b"".join(lines)


def disconnect_lines(numbers: Iterable[int]) -> bytes:
    """Return lines that name connections to end, up to 500 in a line."""
    return b"".join(_line(disconnect=batch) for batch in _batches(numbers))


def _batches(names: Iterable[Any]) -> list[list[Any]]:
    found = sorted(names)
    return [found[first : first + MAX_ENTRIES] for first in range(0, len(found), MAX_ENTRIES)]


def _line(**fields: Any) -> bytes:
    return _json(fields) + b"\n"


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


# ---- Requests ----


class StreamRequest(NamedTuple):
    """The start of the broker that asks for a change stream, and the broker's name."""

    boot: str
    name: str


class SeenLogin(NamedTuple):
    """A login that the plugin has allowed by itself."""

    username: str
    client_id: str


class PluginReport(NamedTuple):
    """The content of a report. `dropped` counts denials for which the plugin had no room."""

    broker: BrokerReport
    logins: tuple[SeenLogin, ...]
    denials: tuple[Denial, ...]
    dropped: int


class _Fields:
    """The fields of one JSON object; each method returns a checked value or raises `MalformedRequest`."""

    def __init__(self, given: object, path: str = "") -> None:
        if not isinstance(given, dict):
            raise MalformedRequest(path.rstrip(".") or "body")
        self._given: Mapping[str, object] = given
        self._path = path

    def text(self, name: str, most: int = _MAX_TEXT_BYTES, least: int = 0) -> str:
        return _checked_text(self._given.get(name), self._path + name, most, least)

    def optional_text(self, name: str, most: int) -> str | None:
        return None if self._given.get(name) is None else self.text(name, most)

    def username(self) -> str:
        return self.text("username", _MAX_USERNAME, least=1)

    def client_id(self) -> str:
        return self.text("clientid")

    def integer(self, name: str, most: int = _MAX_INTEGER) -> int:
        return _checked_integer(self._given.get(name), self._path + name, most)

    def boot(self) -> str:
        boot = self.text("boot")
        if not _BOOT.fullmatch(boot):
            raise MalformedRequest("boot")
        return boot

    def broker_name(self) -> str:
        name = self.text("name", MAX_BROKER_NAME, least=1)
        if not name.isprintable():
            raise MalformedRequest("name")
        return name

    def one_of(self, name: str, allowed: Collection[object]) -> Any:
        value = self._given.get(name)
        if type(value) not in (str, int) or value not in allowed:
            raise MalformedRequest(self._path + name)
        return value

    def entries(self, name: str, *, least: int = 0) -> list[object]:
        value = self._given.get(name, [])
        if not isinstance(value, list) or not least <= len(value) <= MAX_ENTRIES:
            raise MalformedRequest(self._path + name)
        return value

    def each(self, name: str) -> Iterable[_Fields]:
        return (_Fields(entry, f"{self._path}{name}[{at}].") for at, entry in enumerate(self.entries(name)))


def parse_usernames(body: bytes) -> list[str]:
    """Return the names of a request for the states of 1 to 500 users."""
    entries = _parse(body).entries("usernames", least=1)
    return [_checked_text(entry, f"usernames[{at}]", _MAX_TEXT_BYTES, 1) for at, entry in enumerate(entries)]


def parse_stream_request(parameters: Mapping[str, str]) -> StreamRequest:
    """Return the query parameters of a request for a change stream."""
    fields = _Fields(dict(parameters))
    return StreamRequest(fields.boot(), fields.broker_name())


def parse_report(body: bytes) -> PluginReport:
    """Return the content of a report. Denials that no administrator could change are left out."""
    fields = _parse(body)
    broker = BrokerReport(
        fields.boot(),
        fields.broker_name(),
        fields.text("plugin", _MAX_WORD),
        fields.integer("generation"),
        tuple(_connected(each) for each in fields.each("connected")),
        tuple(
            _checked_integer(number, f"disconnected[{at}]", _MAX_INTEGER)
            for at, number in enumerate(fields.entries("disconnected"))
        ),
    )
    logins = tuple(SeenLogin(each.username(), each.client_id()) for each in fields.each("logins"))
    denials = tuple(filter(None, map(_denial, fields.each("denials"))))
    return PluginReport(broker, logins, denials, fields.integer("dropped"))


def _parse(body: bytes) -> _Fields:
    if len(body) > MAX_BODY:
        raise MalformedRequest("body")
    try:
        return _Fields(json.loads(body))
    except (ValueError, RecursionError):
        raise MalformedRequest("body") from None


def _connected(fields: _Fields) -> ConnectedClient:
    return ConnectedClient(
        fields.integer("id"),
        fields.username(),
        fields.client_id(),
        normalize_address(fields.optional_text("address", _MAX_ADDRESS)),
        fields.text("protocol", _MAX_WORD),
        datetime.fromtimestamp(fields.integer("since", _MAX_TIME), UTC),
        _CREDENTIALS[fields.one_of("credential", _CREDENTIALS)],
    )


def _denial(fields: _Fields) -> Denial | None:
    username, client_id, topic = fields.username(), fields.client_id(), fields.text("topic")
    access, text = fields.one_of("access", _DENIED_ACCESSES), fields.text("reason", _MAX_WORD)
    try:
        reason = Reason(text)
        if access:
            requests_for(topic, access, Identity(username, client_id))
    except (ValueError, InvalidInput):
        return None  # a reason of a newer plugin, or a topic that no permission could allow
    return denial_of(Denied(reason), username, client_id, topic if access else "", access)


def _checked_text(value: object, path: str, most: int, least: int = 0) -> str:
    """Return a text of `least` to `most` characters that is valid UTF-8 of at most 65,535 bytes."""
    if not isinstance(value, str) or "\0" in value or not least <= len(value) <= most:
        raise MalformedRequest(path)
    try:
        size = len(value.encode())
    except UnicodeEncodeError:  # half of a surrogate pair
        raise MalformedRequest(path) from None
    if size > _MAX_TEXT_BYTES:
        raise MalformedRequest(path)
    return value


def _checked_integer(value: object, path: str, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise MalformedRequest(path)
    return value

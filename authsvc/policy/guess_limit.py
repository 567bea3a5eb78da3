"""The limit of wrong passwords a minute for each user over MQTT, against password guessing.

`docs/adr/0010-guessing-over-mqtt.md` has the rules, and why they count by client id.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections import Counter, OrderedDict, deque
from ipaddress import IPv4Address, IPv6Address
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from authsvc.addresses import network_of

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from authsvc.policy.known_client_ids import KnownClientIds

Address = IPv4Address | IPv6Address

LIMIT_FOR_UNKNOWN_CLIENT_IDS = 30
"""Wrong passwords a minute for a username, over all client ids with which it has not logged in."""
LIMIT_FOR_KNOWN_CLIENT_ID = 300
"""Wrong passwords a minute for a username and one client id with which it has logged in."""
ALL_ADDRESSES_FACTOR = 10
"""If the broker sends addresses, each address has its own limit, and all together have this many times as much."""
MAX_COUNTED = 100_000
"""Wrong passwords in memory, separately for known and for unknown client ids. When they are full, each username or
known client id has one check a minute."""
MAX_COUNTED_OF_USER = 3000
"""Wrong passwords in memory for one username. A password counts again for each known client id and address."""
MAX_REPORTED = 100
"""Throttled usernames a minute that are reported by name, separately for known and for unknown client ids. So decoys
with made-up client ids do not hide an attack with a known one."""
_MAX_QUEUED_REPORTS = 4 * MAX_REPORTED
_PERIOD = 60.0
_MAX_DROPPED_PER_CALL = 100


class Login(NamedTuple):
    """A login attempt; the address is None if the broker does not send it."""

    username: str
    client_id: str
    address: Address | None = None


class Attempt(NamedTuple):
    """A login, whether its client id is known, and the keys under which its password counts, each with a limit."""

    login: Login
    known: bool
    limits: tuple[tuple[Hashable, int], ...]


class Counted(NamedTuple):
    """A counted password; `entry` is None if the same password was counted before."""

    attempt: Attempt
    entry: _Entry | None


class GuessLimit:
    """Counts the different wrong passwords of the last minute and refuses checks beyond the limits.

    A password is counted before its check and uncounted if it is right, so passwords checked at the same time count
    too. The same password counts once a minute. No entry is evicted before its minute is over. When the memory is full,
    a login for which nothing is counted still has one check, so filling the memory does not lock out all devices.

    `reports` queues the first refused attempt of each user and minute, for at most `MAX_REPORTED` users; `unreported`
    is the number of further users. `throttled_windows` counts the users and minutes of both.
    """

    def __init__(
        self, known: KnownClientIds, clock: Callable[[], float] = monotonic, max_counted: int = MAX_COUNTED
    ) -> None:
        self.throttled_windows = 0
        self.reports: deque[Attempt] = deque()
        self._known = known
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._of_known = _Windows(max_counted)
        self._of_unknown = _Windows(max_counted)
        self._throttled: OrderedDict[str, float] = OrderedDict()
        self._named: dict[bool, OrderedDict[str, float]] = {True: OrderedDict(), False: OrderedDict()}
        self._unreported = 0
        self._lock = threading.Lock()

    def attempt(self, login: Login) -> Attempt:
        """Return a login with the limits that apply to it."""
        username, client_id, address = login
        known = self._known.knows(username, client_id)
        limit = LIMIT_FOR_KNOWN_CLIENT_ID if known else LIMIT_FOR_UNKNOWN_CLIENT_IDS
        key = (username, client_id) if known else (username,)
        if address is None:
            return Attempt(login, known, ((key, limit),))
        network = network_of(str(address))
        return Attempt(login, known, (((key, network), limit), ((key, "all"), limit * ALL_ADDRESSES_FACTOR)))

    def refuses(self, login: Login) -> bool:
        """Return whether every password of this login is refused now, even the right one."""
        if not self._of_known and not self._of_unknown:
            return False
        attempt = self.attempt(login)
        with self._lock:
            return self._windows_of(attempt).refuses(attempt, self._clock())

    def count(self, attempt: Attempt, password: str) -> Counted | None:
        """Count a password before its check; None if the limit is reached, and the password must not be checked."""
        digest = hashlib.blake2b(password.encode("utf-8", "surrogatepass"), key=self._key, digest_size=8).digest()
        with self._lock:
            now, windows = self._clock(), self._windows_of(attempt)
            if windows.refuses(attempt, now):
                self._report(attempt, now)
                return None
            return Counted(attempt, windows.add(attempt, digest, now))

    def uncount(self, counted: Counted) -> None:
        """Undo `count` for a password that was right or was not checked."""
        with self._lock:
            self._windows_of(counted.attempt).remove(counted.entry)

    @property
    def unreported(self) -> int:
        """How many throttled users are in no report, each counted once a minute."""
        return self._unreported

    def drop_unreported(self, count: int) -> None:
        """Subtract users that an audit event has recorded."""
        with self._lock:
            self._unreported -= count

    def _windows_of(self, attempt: Attempt) -> _Windows:
        return self._of_known if attempt.known else self._of_unknown

    def _report(self, attempt: Attempt, now: float) -> None:
        username, named = attempt.login.username, self._named[attempt.known]
        for recent in (self._throttled, *self._named.values()):
            while recent and next(iter(recent.values())) <= now - _PERIOD:
                recent.popitem(last=False)
        is_new = username not in self._throttled
        if is_new:
            self._throttled[username] = now
            self.throttled_windows += 1
        if any(username in recent for recent in self._named.values()):
            return
        # Reports stay in the queue while the database is unreachable; newer ones do not replace them.
        if len(named) < MAX_REPORTED and len(self.reports) < _MAX_QUEUED_REPORTS:
            named[username] = now
            self.reports.append(attempt)
        elif is_new:
            self._unreported += 1


class _Entry(NamedTuple):
    """A counted password, and the keys under which it is new."""

    at: float
    username: str
    password: bytes
    keys: tuple[Hashable, ...]


class _Windows:
    """The passwords counted under each key in the last minute, the oldest first.

    A password that counts under several keys is one entry of `max_counted`.
    """

    def __init__(self, max_counted: int) -> None:
        self._entries: OrderedDict[int, _Entry] = OrderedDict()
        self._windows: dict[Hashable, set[bytes]] = {}
        self._of_user: Counter[str] = Counter()
        self._max_counted = max_counted

    def __bool__(self) -> bool:
        return bool(self._entries)

    def refuses(self, attempt: Attempt, now: float) -> bool:
        """Return whether the passwords of this attempt may not be checked any more."""
        self._drop_expired(now - _PERIOD)
        if any(len(self._windows.get(key, ())) >= limit for key, limit in attempt.limits):
            return True
        of_user = self._of_user[attempt.login.username]
        is_full = len(self._entries) >= self._max_counted or of_user >= MAX_COUNTED_OF_USER
        return is_full and any(key in self._windows for key, _ in attempt.limits)

    def add(self, attempt: Attempt, password: bytes, now: float) -> _Entry | None:
        """Count a password under each key where it is new; None if there is no such key."""
        new = tuple(key for key, _ in attempt.limits if password not in self._windows.get(key, ()))
        if not new:
            return None
        entry = _Entry(now, attempt.login.username, password, new)
        self._entries[id(entry)] = entry
        self._of_user[entry.username] += 1
        for key in new:
            self._windows.setdefault(key, set()).add(password)
        return entry

    def remove(self, entry: _Entry | None) -> None:
        """Undo `add`; an entry that has expired is ignored."""
        if entry is None or self._entries.pop(id(entry), None) is None:
            return
        self._of_user[entry.username] -= 1
        if not self._of_user[entry.username]:
            del self._of_user[entry.username]
        for key in entry.keys:
            self._windows[key].discard(entry.password)
            if not self._windows[key]:
                del self._windows[key]

    def _drop_expired(self, until: float) -> None:
        if self._entries and next(reversed(self._entries.values())).at <= until:
            self._entries, self._windows, self._of_user = OrderedDict(), {}, Counter()
        # At most 100 at each login, because a broker waits. So after a flood some count a little longer than a minute.
        for _ in range(_MAX_DROPPED_PER_CALL):
            oldest = next(iter(self._entries.values()), None)
            if oldest is None or oldest.at > until:
                break
            self.remove(oldest)

"""How many wrong passwords a minute are checked for a user, so that nobody guesses a password over MQTT.

The rule, and why it counts by client id, is in `docs/adr/0010-guessing-over-mqtt.md`.
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

FROM_UNKNOWN_CLIENT_IDS = 30
"""Wrong passwords a minute for a username, over all client ids that it has not logged in with."""
FROM_KNOWN_CLIENT_ID = 300
"""Wrong passwords a minute for a username from one client id that it has logged in with."""
OVER_ALL_ADDRESSES = 10
"""Where addresses are told, each has a limit of its own, and all together have this many times as much."""
MAX_COUNTED = 100_000
"""Wrong passwords that are counted at a time, for known client ids and for all others separately, before each username
and known client id has only one."""
MAX_COUNTED_OF_USER = 3000
"""Of these, for one username: the same password counts again for each client id that is known and for each address."""
MAX_REPORTED = 100
"""Usernames a minute that are reported by name when their logins are throttled. Attempts with a known client id have
this number for themselves, so decoys with made-up client ids do not hide an attack by somebody who knows one."""
_MAX_WAITING = 4 * MAX_REPORTED
_PERIOD = 60.0
_DROPPED_AT_ONCE = 100


class Login(NamedTuple):
    """Who logs in; the address is None from a broker that does not tell it."""

    username: str
    client_id: str
    address: Address | None = None


class Attempt(NamedTuple):
    """A login, whether its client id is known, and the limit of each window that its wrong password counts in."""

    login: Login
    known: bool
    limits: tuple[tuple[Hashable, int], ...]


class Counted(NamedTuple):
    """A password that is checked now, and what was counted for it; None if it was counted before."""

    attempt: Attempt
    entry: _Entry | None


class GuessLimit:
    """Counts the different wrong passwords of the last minute, and refuses to check more than the limits allow.

    A password is counted before it is checked and taken back when it turns out right, so passwords that are tried at
    the same time count too. The same password counts once a minute. Nothing is evicted before its minute is over. When
    the memory is full, a login for which nothing is counted still has one password checked, so nobody can keep out
    all devices by filling it.

    `reports` holds the first refused attempt of each user and minute until somebody takes it, for at most
    `MAX_REPORTED` users; `unreported` is how many users more there were. `throttled_windows` counts all.
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
        """Return what limits a login now."""
        username, client_id, address = login
        known = self._known.knows(username, client_id)
        limit = FROM_KNOWN_CLIENT_ID if known else FROM_UNKNOWN_CLIENT_IDS
        key = (username, client_id) if known else (username,)
        if address is None:
            return Attempt(login, known, ((key, limit),))
        network = network_of(str(address))
        return Attempt(login, known, (((key, network), limit), ((key, "all"), limit * OVER_ALL_ADDRESSES)))

    def refuses(self, login: Login) -> bool:
        """Return whether no password of this login is checked now, not even a right one."""
        if not self._of_known and not self._of_unknown:
            return False
        attempt = self.attempt(login)
        with self._lock:
            return self._windows_of(attempt).refuses(attempt, self._clock())

    def count(self, attempt: Attempt, password: str) -> Counted | None:
        """Count a password that is about to be checked; None if the limit is reached and it must not be."""
        digest = hashlib.blake2b(password.encode("utf-8", "surrogatepass"), key=self._key, digest_size=8).digest()
        with self._lock:
            now, windows = self._clock(), self._windows_of(attempt)
            if windows.refuses(attempt, now):
                self._report(attempt, now)
                return None
            return Counted(attempt, windows.add(attempt, digest, now))

    def take_back(self, counted: Counted) -> None:
        """Undo `count`, because the password was right or was not checked after all."""
        with self._lock:
            self._windows_of(counted.attempt).remove(counted.entry)

    @property
    def unreported(self) -> int:
        """How many throttled users are in no report, counted once a minute each, until `drop_unreported`."""
        return self._unreported

    def drop_unreported(self, count: int) -> None:
        """Count so many fewer, because an audit event tells of them."""
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
        # While the database is gone nobody takes the reports; those that wait are not dropped for newer ones.
        if len(named) < MAX_REPORTED and len(self.reports) < _MAX_WAITING:
            named[username] = now
            self.reports.append(attempt)
        elif is_new:
            self._unreported += 1


class _Entry(NamedTuple):
    """A counted password, and the keys under which it was not counted before."""

    at: float
    username: str
    password: bytes
    keys: tuple[Hashable, ...]


class _Windows:
    """The passwords that were counted under each key within the last minute, the oldest first.

    A password that counts under several keys is one entry, and takes one place of `max_counted`.
    """

    def __init__(self, max_counted: int) -> None:
        self._entries: OrderedDict[int, _Entry] = OrderedDict()
        self._windows: dict[Hashable, set[bytes]] = {}
        self._of_user: Counter[str] = Counter()
        self._max_counted = max_counted

    def __bool__(self) -> bool:
        return bool(self._entries)

    def refuses(self, attempt: Attempt, now: float) -> bool:
        """Return whether no further password of this attempt may be checked."""
        self._drop_over(now - _PERIOD)
        if any(self._size(key) >= limit for key, limit in attempt.limits):
            return True
        of_user = self._of_user[attempt.login.username]
        is_full = len(self._entries) >= self._max_counted or of_user >= MAX_COUNTED_OF_USER
        return is_full and any(key in self._windows for key, _ in attempt.limits)

    def add(self, attempt: Attempt, password: bytes, now: float) -> _Entry | None:
        """Count a password under each key of the attempt under which it is new; None if it is new under none."""
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
        """Undo `add`, unless the minute of the entry is over."""
        if entry is None or self._entries.pop(id(entry), None) is None:
            return
        self._of_user[entry.username] -= 1
        if not self._of_user[entry.username]:
            del self._of_user[entry.username]
        for key in entry.keys:
            self._windows[key].discard(entry.password)
            if not self._windows[key]:
                del self._windows[key]

    def _drop_over(self, until: float) -> None:
        if self._entries and next(reversed(self._entries.values())).at <= until:
            self._entries, self._windows, self._of_user = OrderedDict(), {}, Counter()
        # A few at each login, since a broker waits: after a flood the last ones count a little longer than a minute.
        for _ in range(_DROPPED_AT_ONCE):
            oldest = next(iter(self._entries.values()), None)
            if oldest is None or oldest.at > until:
                break
            self.remove(oldest)

    def _size(self, key: Hashable) -> int:
        return len(self._windows.get(key, ()))

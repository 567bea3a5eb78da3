"""Counts unknown usernames and detects a flood of them.

Each process counts in memory. While there are many, it replaces its row in the database every 5 seconds, so a larger
flood costs no more writes. The page and the API add up the rows of all processes.
"""

from __future__ import annotations

import threading
import uuid
from collections import Counter, deque
from dataclasses import asdict, dataclass
from datetime import timedelta
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from authsvc.addresses import network_of
from authsvc.storage.database import database_time, session, transaction
from registry import lock
from registry.models import UnknownNameReport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

# A flood is at least this many different names per minute.
FLOOD_NAMES = 60
# A process with fewer names per minute writes no report: these may be a few devices that retry.
_REPORTED_NAMES = 10
_SECONDS = 60
_BUCKET_SECONDS = 5.0
_MAX_NAMES = 10_000
_MAX_SAMPLES = 200
_MAX_ADDRESSES = 3
_REPORT_LASTS = timedelta(seconds=15)
# A common prefix is reported if this share of the names has it, and from this length.
_SHARE = 0.6
_SHORTEST_PREFIX = 3


class AddressCount(NamedTuple):
    """A source address, or the /64 network of IPv6 addresses, and its attempts."""

    address: str
    attempts: int


class Flood(NamedTuple):
    """The unknown usernames of the last minute in all processes, and what most of them have in common.

    `unlocked_at` is the start of the unlock window; None while the registry is locked.
    """

    attempts: int
    names: int
    name_prefix: str | None
    client_id_prefix: str | None
    addresses: tuple[AddressCount, ...]
    unlocked_at: datetime | None

    @property
    def username_pattern(self) -> str:
        """A pattern that matches most of the names."""
        return f"{self.name_prefix or ''}*"

    @property
    def suggested_filter(self) -> dict[str, str | int] | None:
        """The fields of an API filter for the names of the flood; it excludes every name with several attempts.

        While the registry is unlocked, it also excludes names from before the unlock window. None if the names have
        neither a prefix nor an address in common, because the filter would match every new device.
        """
        if self.name_prefix:
            common = {"usernamePattern": self.username_pattern}
        elif self.addresses:
            common = {"address": self.addresses[0].address}
        else:
            return None
        since = {"after": f"{self.unlocked_at:%Y-%m-%dT%H:%M:%SZ}"} if self.unlocked_at else {}
        return {**common, "maxAttempts": 1, **since}


class _Bucket:
    """The counts of `_BUCKET_SECONDS`."""

    def __init__(self, since: float) -> None:
        self.since = since
        self.attempts = 0
        self.names: set[int] = set()
        self.samples: list[tuple[str, str]] = []
        self.addresses: Counter[str] = Counter()

    def count_address(self, address: str | None, attempts: int) -> None:
        network = network_of(address)
        if network and (network in self.addresses or len(self.addresses) < _MAX_NAMES):
            self.addresses[network] += attempts


@dataclass(frozen=True, slots=True)
class Summary:
    """The counts of one process in the last minute."""

    attempts: int
    names: int
    name_prefix: str | None
    client_id_prefix: str | None
    addresses: dict[str, int]


class UnknownNames:
    """Counts the unknown usernames of this process in the last minute, in bounded memory."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._buckets: deque[_Bucket] = deque()
        self._source = uuid.uuid4().hex
        self._reported = False
        self._lock = threading.Lock()

    def count(self, username: str, attempts: int = 1, client_id: str = "", address: str | None = None) -> None:
        """Count attempts under a name that is neither a user's nor registered."""
        with self._lock:
            bucket = self._current()
            bucket.attempts += attempts
            if len(bucket.names) < _MAX_NAMES:
                bucket.names.add(hash(username))
            if len(bucket.samples) < _MAX_SAMPLES:
                bucket.samples.append((username, client_id))
            bucket.count_address(address, attempts)

    def count_refused(self, address: str | None) -> None:
        """Count a request that was refused before its name was looked up. The name may be a user's."""
        with self._lock:
            bucket = self._current()
            bucket.attempts += 1
            bucket.count_address(address, 1)

    def summary(self) -> Summary:
        with self._lock:
            self._drop_old()
            names: set[int] = set().union(*(bucket.names for bucket in self._buckets))
            samples = [sample for bucket in self._buckets for sample in bucket.samples]
            addresses = sum((bucket.addresses for bucket in self._buckets), Counter[str]())
            attempts = sum(bucket.attempts for bucket in self._buckets)
        return Summary(
            attempts,
            len(names),
            common_prefix({name for name, _ in samples}),
            common_prefix({client_id for _, client_id in samples}),
            dict(addresses.most_common(_MAX_ADDRESSES)),
        )

    def report(self) -> None:
        """Write the summary of this process, or delete it if there are fewer than `_REPORTED_NAMES` names."""
        found = self.summary()
        if found.names < _REPORTED_NAMES:
            if self._reported:
                with transaction():
                    UnknownNameReport.delete().where(UnknownNameReport.source == self._source).execute()
                self._reported = False
            return
        with transaction():
            now = database_time()
            changes = {"at": now, **asdict(found)}
            UnknownNameReport.insert({"source": self._source, **changes}).on_conflict(
                conflict_target=[UnknownNameReport.source], update=changes
            ).execute()
            # Reports of processes that have ended.
            UnknownNameReport.delete().where(UnknownNameReport.at < now - 4 * _REPORT_LASTS).execute()
        self._reported = True

    def _current(self) -> _Bucket:
        now = self._clock()
        if not self._buckets or now - self._buckets[-1].since >= _BUCKET_SECONDS:
            self._drop_old()
            self._buckets.append(_Bucket(now))
        return self._buckets[-1]

    def _drop_old(self) -> None:
        oldest = self._clock() - _SECONDS
        while self._buckets and self._buckets[0].since < oldest:
            self._buckets.popleft()


def flood() -> Flood | None:
    """Return the flood of unknown usernames, or None below `FLOOD_NAMES` names per minute."""
    with session():
        since = database_time() - _REPORT_LASTS
        rows = list(UnknownNameReport.select().where(UnknownNameReport.at >= since))
        lock_state = lock.state()
    names = sum(row.names for row in rows)
    if names < FLOOD_NAMES:
        return None
    largest = max(rows, key=lambda row: row.names)
    addresses = sum((Counter(row.addresses) for row in rows), Counter[str]())
    return Flood(
        sum(row.attempts for row in rows),
        names,
        largest.name_prefix,
        largest.client_id_prefix,
        tuple(AddressCount(*one) for one in addresses.most_common(_MAX_ADDRESSES)),
        None if lock_state.locked else lock_state.opened_at,
    )


def common_prefix(texts: Iterable[str]) -> str | None:
    """Return the longest prefix that most texts share, without trailing digits; None if it is too short."""
    left = [text for text in texts if text]
    needed = max(len(left) * _SHARE, 2)
    prefix = ""
    while following := Counter(text[len(prefix)] for text in left if len(text) > len(prefix)):
        character, count = following.most_common(1)[0]
        if count < needed:
            break
        prefix += character
        left = [text for text in left if text.startswith(prefix)]
    prefix = prefix.rstrip("0123456789")  # numbered names share their first digits
    return prefix if len(prefix) >= _SHORTEST_PREFIX else None

"""How many unknown usernames arrive, and what they have in common: counted in memory, reported to all processes.

A process counts for itself, in memory. Every 5 seconds it replaces its one row in the database, and only while there
is something to report, so a flood costs no writes of its own. The page and the API add up the rows of all processes.
"""

from __future__ import annotations

import threading
import uuid
from collections import Counter, deque
from dataclasses import dataclass
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

# From so many different names a minute on it is called a flood.
FLOOD_NAMES = 60
# A process with fewer reports nothing; a few devices that retry are no news.
_REPORTED_NAMES = 10
_SECONDS = 60
_BUCKET_SECONDS = 5.0
_MAX_NAMES = 10_000
_MAX_SAMPLES = 200
_MAX_ADDRESSES = 3
_REPORT_LASTS = timedelta(seconds=15)
# A prefix says something if most names begin with it, and if it is no mere letter.
_SHARE = 0.6
_SHORTEST_PREFIX = 3


class Flood(NamedTuple):
    """Unknown usernames of the last minute over all processes: how many, and what most of them have in common.

    `unlocked_at` is when the registry was unlocked; None while it is locked.
    """

    attempts: int
    names: int
    name_prefix: str | None
    client_id_prefix: str | None
    addresses: tuple[tuple[str, int], ...]
    unlocked_at: datetime | None

    @property
    def username_pattern(self) -> str:
        """The pattern that most of the names fit."""
        return f"{self.name_prefix or ''}*"

    @property
    def suggested_filter(self) -> dict[str, str | int] | None:
        """The filter, as in the API, that finds the names of the flood and spares every device that came back.

        While the registry is unlocked, it also spares names that came earlier. None if the names have neither a prefix
        nor an address in common: a filter would match every newcomer.
        """
        if self.name_prefix:
            common = {"usernamePattern": self.username_pattern}
        elif self.addresses:
            common = {"address": self.addresses[0][0]}
        else:
            return None
        since = {"after": f"{self.unlocked_at:%Y-%m-%dT%H:%M:%SZ}"} if self.unlocked_at else {}
        return {**common, "maxAttempts": 1, **since}


class _Bucket:
    """What was counted in 5 seconds."""

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
    """What one process counted in the last minute."""

    attempts: int
    names: int
    name_prefix: str | None
    client_id_prefix: str | None
    addresses: dict[str, int]


class UnknownNames:
    """Counts one process' unknown usernames over the last minute, in bounded memory."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._buckets: deque[_Bucket] = deque()
        self._source = uuid.uuid4().hex
        self._reported = False
        self._lock = threading.Lock()

    def count(self, username: str, attempts: int = 1, client_id: str = "", address: str | None = None) -> None:
        """Count attempts of a name that is neither a user nor registered."""
        with self._lock:
            bucket = self._current()
            bucket.attempts += attempts
            if len(bucket.names) < _MAX_NAMES:
                bucket.names.add(hash(username))
            if len(bucket.samples) < _MAX_SAMPLES:
                bucket.samples.append((username, client_id))
            bucket.count_address(address, attempts)

    def count_refused(self, address: str | None) -> None:
        """Count a request that was refused before its name was looked up; the name may be a user's."""
        with self._lock:
            bucket = self._current()
            bucket.attempts += 1
            bucket.count_address(address, 1)

    def summary(self) -> Summary:
        """Return what was counted in the last minute."""
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
        """Write this process' summary for all others to read; nothing while hardly any unknown name arrives."""
        found = self.summary()
        if found.names < _REPORTED_NAMES:
            if self._reported:
                with transaction():
                    UnknownNameReport.delete().where(UnknownNameReport.source == self._source).execute()
                self._reported = False
            return
        with transaction():
            now = database_time()
            row = {
                "source": self._source,
                "at": now,
                "attempts": found.attempts,
                "names": found.names,
                "name_prefix": found.name_prefix,
                "client_id_prefix": found.client_id_prefix,
                "addresses": found.addresses,
            }
            changes = {name: value for name, value in row.items() if name != "source"}
            UnknownNameReport.insert(row).on_conflict(
                conflict_target=[UnknownNameReport.source], update=changes
            ).execute()
            # Left behind by processes that ended.
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
    """Return what arrives while so many unknown names arrive that it is called a flood; otherwise None."""
    with session():
        since = database_time() - _REPORT_LASTS
        rows = list(UnknownNameReport.select().where(UnknownNameReport.at >= since))
        registry = lock.state()
    names = sum(row.names for row in rows)
    if names < FLOOD_NAMES:
        return None
    loudest = max(rows, key=lambda row: row.names)
    addresses = sum((Counter(row.addresses) for row in rows), Counter[str]())
    return Flood(
        sum(row.attempts for row in rows),
        names,
        loudest.name_prefix,
        loudest.client_id_prefix,
        tuple(addresses.most_common(_MAX_ADDRESSES)),
        None if registry.locked else registry.opened_at,
    )


def common_prefix(texts: Iterable[str]) -> str | None:
    """Return the longest prefix that most of the texts share; None if it says nothing."""
    left = [text for text in texts if text]
    needed = max(len(left) * _SHARE, 2)
    prefix = ""
    while following := Counter(text[len(prefix)] for text in left if len(text) > len(prefix)):
        character, count = following.most_common(1)[0]
        if count < needed:
            break
        prefix += character
        left = [text for text in left if text.startswith(prefix)]
    prefix = prefix.rstrip("0123456789")  # names that are numbered share the first digits for a while
    return prefix if len(prefix) >= _SHORTEST_PREFIX else None

"""Rate limits on registration requests, counted in the memory of one process before the database is read."""

from __future__ import annotations

import hashlib
import math
import secrets
import threading
from collections import OrderedDict
from enum import Enum, auto
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from authsvc.addresses import network_of
from authsvc.errors import TooMany

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

_MINUTE = 60.0
# Each entry takes about 300 bytes.
MAX_COUNTED = 20_000
MAX_VERIFIED = 10_000
# Each costs one or two password hashes; a process computes about 15 per second.
COMPARED_PER_SECOND = 5


class CheckedAgainst(Enum):
    """What a password is compared with. Each has its own budget, so that made-up names do not use up that of users."""

    REGISTRATION = auto()
    USER = auto()


class PerMinute:
    """Counts events by key and minute, for up to `max_keys` keys; the key with the oldest minute is evicted first."""

    def __init__(self, limit: int, max_keys: int = MAX_COUNTED, clock: Callable[[], float] = monotonic) -> None:
        self._limit = limit
        self._max_keys = max_keys
        self._clock = clock
        self._counts: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._counts)

    def add(self, key: Hashable) -> float:
        """Count one event. Return 0 within the limit, otherwise the seconds until the key's minute ends."""
        now = self._clock()
        since, count = self._counts.get(key, (-_MINUTE, 0))
        if now - since >= _MINUTE:
            self._counts.pop(key, None)
            since, count = now, 0
        self._counts[key] = (since, count + 1)
        if len(self._counts) > self._max_keys:
            self._counts.popitem(last=False)
        return since + _MINUTE - now if count >= self._limit else 0.0


class TokenBucket:
    """A token bucket of size `burst` that refills at `per_second`."""

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float] = monotonic) -> None:
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._left = float(burst)
        self._filled_at = clock()

    def take(self) -> bool:
        """Take a token and return True, or return False if none is left."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._filled_at) * self._per_second)
        self._filled_at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Limits(NamedTuple):
    """Requests per minute and process; `names` limits the number of different usernames."""

    per_name_and_address: int
    per_address: int
    names: int


class LimitExceeded(TooMany):
    """A limit by address or on names is exceeded. The caller may still compare the credentials with the stored ones.

    If they differ, the caller raises this error, so that the answer is the same for every name.
    """


class RequestLimits:
    """Limits requests by name and address, by address, and by number of different names.

    Requests with verified credentials are not counted. So no other client, even behind the same address, can make a
    device receive 429. Verified credentials are remembered as digests under a key of this process, and lost when it
    restarts. Therefore `COMPARED_PER_SECOND` requests beyond the limits may still be compared: see `LimitExceeded`.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = monotonic) -> None:
        self._pairs = PerMinute(limits.per_name_and_address, clock=clock)
        self._addresses = PerMinute(limits.per_address, clock=clock)
        self._max_names = limits.names
        self._names: set[str] = set()
        self._names_since = clock()
        self._clock = clock
        self._comparisons = {
            kind: TokenBucket(COMPARED_PER_SECOND, COMPARED_PER_SECOND, clock) for kind in CheckedAgainst
        }
        self._key = secrets.token_bytes(32)
        self._verified: OrderedDict[bytes, None] = OrderedDict()
        self._lock = threading.Lock()

    def digest_of(self, username: str, password: str | None, fingerprint: str | None) -> bytes:
        """Return the keyed digest of a username and the credentials sent with it."""
        sent = repr((username, password, fingerprint)).encode("utf-8", "surrogatepass")
        return hashlib.blake2b(sent, key=self._key, digest_size=16).digest()

    def count(
        self,
        username: str,
        address: str | None,
        digest: bytes,
        against: CheckedAgainst = CheckedAgainst.REGISTRATION,
    ) -> None:
        """Count a request unless its credentials are verified; raise `TooMany` beyond the limits.

        The error is `LimitExceeded` if the credentials may still be compared with the stored ones.
        """
        network = network_of(address)
        with self._lock:
            if digest in self._verified:
                self._verified.move_to_end(digest)
                return
            # The limit by name and address comes first: a device that repeats itself uses up no shared limit.
            pair_seconds = self._pairs.add((username, network))
            seconds = pair_seconds or self._addresses.add(network) or self._add_name(username)
            # The limit by name and address is the limit on password guesses.
            is_compared = seconds > 0 and not pair_seconds and self._comparisons[against].take()
        if seconds:
            error = LimitExceeded if is_compared else TooMany
            raise error("too many attempts; wait a little", "too-many-attempts", math.ceil(seconds))

    def mark_verified(self, digest: bytes) -> None:
        """Stop counting requests with these credentials."""
        with self._lock:
            self._verified[digest] = None
            self._verified.move_to_end(digest)
            if len(self._verified) > MAX_VERIFIED:
                self._verified.popitem(last=False)

    def unmark_verified(self, digest: bytes) -> None:
        """Count requests with these credentials again."""
        with self._lock:
            self._verified.pop(digest, None)

    def _add_name(self, username: str) -> float:
        now = self._clock()
        if now - self._names_since >= _MINUTE:
            self._names, self._names_since = set(), now
        if username not in self._names and len(self._names) >= self._max_names:
            return self._names_since + _MINUTE - now
        self._names.add(username)
        return 0.0

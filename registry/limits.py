"""Limits on registration requests, counted in the memory of one process before anything reads the database."""

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
MAX_PROOFS = 10_000
# Each costs a hash or two; a process makes about 15 a second.
COMPARED_PER_SECOND = 5


class Holder(Enum):
    """Whose request it is: each kind has comparisons of its own, so that made-up names use up none of the users'."""

    REGISTRATION = auto()
    USER = auto()


class PerMinute:
    """Counts events by key, each key in minutes of its own; beyond `max_keys` the oldest minute is forgotten."""

    def __init__(self, limit: int, max_keys: int = MAX_COUNTED, clock: Callable[[], float] = monotonic) -> None:
        self._limit = limit
        self._max_keys = max_keys
        self._clock = clock
        self._counts: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._counts)

    def add(self, key: Hashable) -> float:
        """Count one event; return 0 within the limit, otherwise the seconds until the key's minute ends."""
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
    """Allows `burst` events at once and `per_second` in the long run."""

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float] = monotonic) -> None:
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._left = float(burst)
        self._filled_at = clock()

    def take(self) -> bool:
        """Return whether one more event is allowed now, and count it if so."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._filled_at) * self._per_second)
        self._filled_at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Limits(NamedTuple):
    """How many requests a minute one process answers."""

    per_name_and_address: int
    per_address: int
    names: int


class BeyondLimit(TooMany):
    """A limit over many names is reached. The caller may compare what was sent with what is stored.

    Unless they are equal, it answers with this error, so that nothing is told about the name.
    """


class RequestLimits:
    """Limits requests by name and address, by address, and by how many different names are answered at all.

    Nobody who has proved to hold the password and key of a registration is counted, so that others, even behind the
    same address, cannot put a device on 429. The proofs are keyed digests; the key lives and dies with the process.
    The proofs are gone after a restart, so `COMPARED_PER_SECOND` requests beyond the limits by address and of names may
    still prove to come from a holder: see `BeyondLimit`.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = monotonic) -> None:
        self._pairs = PerMinute(limits.per_name_and_address, clock=clock)
        self._addresses = PerMinute(limits.per_address, clock=clock)
        self._max_names = limits.names
        self._names: set[str] = set()
        self._names_since = clock()
        self._clock = clock
        self._comparisons = {kind: TokenBucket(COMPARED_PER_SECOND, COMPARED_PER_SECOND, clock) for kind in Holder}
        self._key = secrets.token_bytes(32)
        self._proofs: OrderedDict[bytes, None] = OrderedDict()
        self._lock = threading.Lock()

    def proof_of(self, username: str, password: str | None, fingerprint: str | None) -> bytes:
        """Return what a name and the credentials sent with it are remembered by."""
        sent = repr((username, password, fingerprint)).encode("utf-8", "surrogatepass")
        return hashlib.blake2b(sent, key=self._key, digest_size=16).digest()

    def count(self, username: str, address: str | None, proof: bytes, holder: Holder = Holder.REGISTRATION) -> None:
        """Count a request; `TooMany`, the same for every name, beyond the limits. A remembered proof is not counted.

        It is `BeyondLimit` if the request may be compared with what is stored.
        """
        network = network_of(address)
        with self._lock:
            if proof in self._proofs:
                self._proofs.move_to_end(proof)
                return
            # One device that repeats itself is refused by the first, and does not use up its neighbours' share.
            pair_seconds = self._pairs.add((username, network))
            seconds = pair_seconds or self._addresses.add(network) or self._add_name(username)
            # The limit by name and address is the one on guesses at a password.
            is_compared = seconds > 0 and not pair_seconds and self._comparisons[holder].take()
        if seconds:
            error = BeyondLimit if is_compared else TooMany
            raise error("too many attempts; wait a little", "too-many-attempts", math.ceil(seconds))

    def remember(self, proof: bytes) -> None:
        """Count no further request with these credentials."""
        with self._lock:
            self._proofs[proof] = None
            self._proofs.move_to_end(proof)
            if len(self._proofs) > MAX_PROOFS:
                self._proofs.popitem(last=False)

    def forget(self, proof: bytes) -> None:
        """Count requests with these credentials again."""
        with self._lock:
            self._proofs.pop(proof, None)

    def _add_name(self, username: str) -> float:
        now = self._clock()
        if now - self._names_since >= _MINUTE:
            self._names, self._names_since = set(), now
        if username not in self._names and len(self._names) >= self._max_names:
            return self._names_since + _MINUTE - now
        self._names.add(username)
        return 0.0

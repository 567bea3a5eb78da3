"""How many connections a process holds: in all, so that descriptors are left for the database, and from one address."""

from __future__ import annotations

import resource
from collections import defaultdict
from typing import TYPE_CHECKING, Generic, TypeVar

from authsvc.addresses import is_within, network_of

if TYPE_CHECKING:
    from authsvc.addresses import Network

Connection = TypeVar("Connection")

# More than anybody needs, and little enough that what is reserved for each descriptor costs nothing.
_MOST_DESCRIPTORS = 65_536
# Logs, metrics, pipes between processes, and what the kernel has accepted before we could refuse it.
_RESERVED = 192
# SQLite opens three files for each connection to the database.
_RESERVED_FOR_EACH_THREAD = 4


def raise_descriptor_limit() -> None:
    """Raise this process's soft limit of file descriptors to its hard limit, at most to 65,536."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _bounded(hard)
    if _bounded(soft) < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def most_connections(threads: int) -> int:
    """Return how many connections a process with so many threads may hold under its limit of file descriptors."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    descriptors = _bounded(soft)
    return max(descriptors - _RESERVED - _RESERVED_FOR_EACH_THREAD * threads, descriptors // 2)


def _bounded(limit: int) -> int:
    return _MOST_DESCRIPTORS if limit == resource.RLIM_INFINITY else min(limit, _MOST_DESCRIPTORS)


class ConnectionLimits(Generic[Connection]):
    """Counts open connections, and says when there are too many. Addresses in `exempt` have no limit of their own."""

    def __init__(self, in_all: int, per_address: int, exempt: tuple[Network, ...] = ()) -> None:
        self._in_all = in_all
        self._per_address = per_address
        self._exempt = exempt
        self._open: dict[Connection, str] = {}
        self._of_address: defaultdict[str, dict[Connection, None]] = defaultdict(dict)

    @property
    def is_full(self) -> bool:
        """Whether one more connection would take a descriptor that the database may need."""
        return len(self._open) >= self._in_all

    def is_full_for(self, address: str) -> bool:
        """Return whether an address has as many connections as it may have."""
        counted = self._of_address.get(network_of(address), ())
        return len(counted) >= self._per_address and not self._is_exempt(address)

    def oldest_of(self, address: str) -> Connection:
        """Return the connection that counts for an address for the longest time; the address must have one."""
        return next(iter(self._of_address[network_of(address)]))

    def add(self, connection: Connection, address: str) -> None:
        """Count a connection, in all and for its address, until it is removed."""
        subscriber = self._open[connection] = network_of(address)
        self._of_address[subscriber][connection] = None

    def count_no_longer_for_address(self, connection: Connection) -> None:
        """Count a connection in all only; one that is not counted is no error."""
        subscriber = self._open.get(connection)
        if subscriber is None:
            return
        self._of_address[subscriber].pop(connection, None)
        if not self._of_address[subscriber]:
            del self._of_address[subscriber]

    def remove(self, connection: Connection) -> None:
        """Forget a connection that has ended; one that was never counted is no error."""
        if connection in self._open:
            self.count_no_longer_for_address(connection)
            del self._open[connection]

    def _is_exempt(self, address: str) -> bool:
        return is_within(address, self._exempt)

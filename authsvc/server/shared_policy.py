"""The policy that processes which answer nothing themselves share with those that they fork."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

import structlog

from authsvc.observability.logs import trace_locations
from authsvc.storage.database import close_all_connections, read_transaction

if TYPE_CHECKING:
    from authsvc.policy.snapshot import Snapshot
    from authsvc.storage.policy_cache import PolicyCache

log = structlog.get_logger()

# Each query reads a few thousand users, however many there are.
_QUERY_SECONDS = 5
# A process that waits for the database does not look after those that it has forked.
_RETRY_SECONDS = 30.0


class SharedPolicy:
    """The policy of a process that forks others, which begin with it and read only what changed since.

    `refresh` is called every second or two. A database that goes back in time, such as one restored from a backup, is
    then noticed while its version is lower. Later its version could be the same again, after other changes.
    """

    def __init__(self, cache: PolicyCache) -> None:
        self._cache = cache
        self._has_failed = False
        self._retry_at = float("-inf")

    @property
    def snapshot(self) -> Snapshot:
        """The policy as it was read last; of version 0 if it could not be read yet."""
        return self._cache.snapshot

    def refresh(self) -> None:
        """Read what changed, and at first everything. After an error wait 30 s; each forked process reads it itself."""
        if monotonic() < self._retry_at:
            return
        try:
            with read_transaction(_QUERY_SECONDS):
                self._cache.catch_up()
        except Exception as error:  # noqa: BLE001 - what cannot be read must not end the service
            if not self._has_failed:
                log.warning(
                    "policy cannot be read before a process is started",
                    error=type(error).__name__,
                    trace=trace_locations(error),
                )
            self._has_failed = True
            self._retry_at = monotonic() + _RETRY_SECONDS
            close_all_connections()
        else:
            self._has_failed = False

    def prepare_fork(self) -> None:
        """Refresh the policy and close the connections to the database, which two processes must not share."""
        self.refresh()
        close_all_connections()

"""The thread beside the requests: keeps the policy snapshot fresh and writes down what need not be written at once."""

from __future__ import annotations

import threading
from time import monotonic
from typing import TYPE_CHECKING

import peewee
import structlog

from authsvc import logins, metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from authsvc.edge import Services

log = structlog.get_logger()

_METRICS_EVERY = 1.0
_TOKEN_USES_EVERY = 5.0
_EXPIRED_TOKENS_EVERY = 3600.0


class Background:
    """Does what is due until it is stopped; a lost database is logged once, and once when it is back."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="background", daemon=True)
        self._database_lost = False
        self._due: list[tuple[float, Callable[[], object]]] = [
            (services.settings.policy_poll_ms / 1000, services.policy.catch_up),
            (_METRICS_EVERY, lambda: metrics.observe_worker(services.policy, services.verifier)),
            (_TOKEN_USES_EVERY, lambda: logins.store_uses(services.access.token_uses)),
            (_EXPIRED_TOKENS_EVERY, logins.delete_expired),
        ]

    def start(self) -> None:
        """Load the policy now if the database lets us, then go on in a thread."""
        self._attempt(self._services.policy.catch_up)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and write down what it still held."""
        self._stopping.set()
        self._thread.join(timeout=5)
        self._attempt(lambda: logins.store_uses(self._services.access.token_uses))

    def _run(self) -> None:
        last_done = [monotonic() for _ in self._due]
        while not self._stopping.wait(self._due[0][0]):
            for position, (every, work) in enumerate(self._due):
                if monotonic() - last_done[position] >= every * 0.9:
                    last_done[position] = monotonic()
                    self._attempt(work)

    def _attempt(self, work: Callable[[], object]) -> None:
        try:
            work()
        except peewee.PeeweeException as error:
            if not self._database_lost:
                log.warning("database lost; answering brokers from memory", error=type(error).__name__)
            self._database_lost = True
        except Exception as error:  # noqa: BLE001 - this thread must outlive any surprise
            log.error("background work failed", error=type(error).__name__)
        else:
            if self._database_lost and work == self._services.policy.catch_up:
                self._database_lost = False
                log.info("database is back")

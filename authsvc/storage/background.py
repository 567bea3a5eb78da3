"""The thread beside the requests: keeps the policy snapshot fresh and writes down what need not be written at once."""

from __future__ import annotations

import threading
from collections.abc import Callable  # noqa: TC003 - a NamedTuple's field types are read when it is made
from time import monotonic
from typing import NamedTuple

import structlog

from authsvc.storage.database import DATABASE_ERRORS

log = structlog.get_logger()


class Job(NamedTuple):
    """Work that is due every so many seconds."""

    every: float
    work: Callable[[], object]
    also_at_the_end: bool = False
    also_at_the_start: bool = False


class BackgroundThread:
    """A thread that does what is due until it is stopped; a lost database is logged once, and once when it is back."""

    def __init__(self, name: str, jobs: list[Job]) -> None:
        self.name = name
        self._jobs = jobs
        self._stopping = threading.Event()
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._failed: Callable[[], object] | None = None

    def start(self) -> None:
        """Start the thread, which does at once what the process needs to be ready, and the first job last."""
        self._thread.start()

    def has_begun(self, within: float) -> bool:
        """Wait for the first job to be done, so that the process begins ready; return whether it was, in seconds."""
        return self._begun.wait(within)

    def stop(self) -> None:
        """End the thread, and do once more what would otherwise lose something."""
        self._stopping.set()
        self._thread.join(timeout=5)
        for job in self._jobs:
            if job.also_at_the_end:
                self._attempt(job.work)

    def _run(self) -> None:
        for job in [job for job in self._jobs if job.also_at_the_start] + self._jobs[:1]:
            self._attempt(job.work)
        self._begun.set()
        due = {job: monotonic() + job.every for job in self._jobs}
        while not self._stopping.wait(max(0.0, min(due.values()) - monotonic())):
            for job in self._jobs:
                if due[job] <= monotonic():
                    self._attempt(job.work)
                    due[job] = monotonic() + job.every

    def _attempt(self, work: Callable[[], object]) -> None:
        try:
            work()
        except DATABASE_ERRORS as error:
            if not self._failed:
                log.warning("database lost; answering brokers from memory", error=type(error).__name__)
            self._failed = work
        except Exception as error:  # noqa: BLE001 - this thread must outlive any surprise
            log.error("background work failed", error=type(error).__name__)
        else:
            # Other work may have succeeded because there was nothing to write.
            if work == self._failed:
                self._failed = None
                log.info("database is back")

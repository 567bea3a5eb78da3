"""Background threads for periodic jobs, such as refreshing the policy snapshot and writing what was noted in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable  # noqa: TC003 - NamedTuple evaluates its field types
from time import monotonic
from typing import NamedTuple

import structlog

from authsvc.storage.database import DATABASE_ERRORS

log = structlog.get_logger()


class Job(NamedTuple):
    """A function to call every `every` seconds."""

    every: float
    work: Callable[[], object]
    run_at_stop: bool = False
    run_at_start: bool = False


class BackgroundThread:
    """A thread that runs its jobs when they are due. It logs a database outage once, and its end once."""

    def __init__(self, name: str, jobs: list[Job]) -> None:
        self.name = name
        self._jobs = jobs
        self._stopping = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._failed: Callable[[], object] | None = None

    def start(self) -> None:
        """Start the thread. It first runs the jobs marked `run_at_start`, then the first job."""
        self._thread.start()

    def wait_until_ready(self, within: float) -> bool:
        """Wait for the runs at the start to end; return False if they take longer than `within` seconds."""
        return self._ready.wait(within)

    def stop(self) -> None:
        """Stop the thread, then run the jobs marked `run_at_stop` once more."""
        self._stopping.set()
        self._thread.join(timeout=5)
        for job in self._jobs:
            if job.run_at_stop:
                self._attempt(job.work)

    def _run(self) -> None:
        for job in [job for job in self._jobs if job.run_at_start] + self._jobs[:1]:
            self._attempt(job.work)
        self._ready.set()
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
        except Exception as error:  # noqa: BLE001 - the thread must survive every error of a job
            log.error("background work failed", error=type(error).__name__)
        else:
            # Another job may have succeeded because it had nothing to write.
            if work == self._failed:
                self._failed = None
                log.info("database is back")

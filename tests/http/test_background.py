"""The background thread logs once that the database is lost, and once that it is back."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import peewee
import pytest
from structlog.testing import capture_logs

from authsvc.jobs import FreshnessWatch, client_id_jobs, policy_jobs
from authsvc.storage.background import BackgroundThread, Job
from authsvc.storage.policy_cache import PolicyCache
from authsvc.storage.propagation import Propagation

if TYPE_CHECKING:
    from pathlib import Path

    from authsvc.policy.snapshot import SnapshotChange
    from authsvc.web.request_context import Services

SOON = 10.0


class Database:
    """A fake database that can be lost."""

    lost = False

    def write(self) -> None:
        if self.lost:
            raise peewee.OperationalError("gone")


def nothing_to_write() -> None:
    """A job that needs no database at the moment."""


def logged_by(background: BackgroundThread, *rounds: bool, database: Database) -> list[str]:
    """Run the thread's jobs in rounds, with the database lost or not, and return the logged events."""
    with capture_logs() as logged:
        for lost in rounds:
            database.lost = lost
            for job in background._jobs:
                background._attempt(job.work)
    return [entry["event"] for entry in logged]


@pytest.mark.parametrize("first", [True, False])
def test_job_without_rows_to_write_does_not_log_that_the_database_is_back(first: bool) -> None:
    database = Database()
    jobs = [Job(1.0, nothing_to_write), Job(1.0, database.write)]
    background = BackgroundThread("test", jobs if first else jobs[::-1])
    logged = logged_by(background, False, True, True, True, False, False, database=database)
    assert logged == ["database lost; answering brokers from memory", "database is back"]


def test_every_loss_is_logged() -> None:
    database = Database()
    background = BackgroundThread("test", [Job(1.0, database.write)])
    logged = logged_by(background, True, False, True, False, database=database)
    assert logged == ["database lost; answering brokers from memory", "database is back"] * 2


def test_policy_is_refreshed_while_client_ids_are_written(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    writing, may_end = threading.Event(), threading.Event()

    def write_for_long() -> None:
        writing.set()
        may_end.wait(SOON)

    for name in ("store", "load_stored", "delete_expired"):
        monkeypatch.setattr(services.client_ids, name, write_for_long)
    client_ids, policy = (
        BackgroundThread("client ids", client_id_jobs(services)),
        BackgroundThread("policy", policy_jobs(services)),
    )
    client_ids.start()
    assert writing.wait(SOON)
    policy.start()
    try:
        assert policy.wait_until_ready(SOON), "the first policy load does not wait for client ids"
        assert services.policy.is_loaded
        assert not client_ids.wait_until_ready(0)
        for job in policy_jobs(services):
            job.work()
        assert not client_ids.wait_until_ready(0), "no job of the policy thread works on client ids"
    finally:
        may_end.set()
        for thread in (policy, client_ids):
            thread.stop()


def test_policy_is_watched_while_its_first_refresh_ends(services: Services, tmp_path: Path) -> None:
    propagation = Propagation(tmp_path / "sockets")
    propagation.listen(lambda: None)
    policy = PolicyCache()
    watched: list[SnapshotChange] = []

    def watch(change: SnapshotChange) -> None:
        """Run the watch when the policy is read and its refresh has not ended."""
        FreshnessWatch(policy, propagation).check()
        watched.append(change)

    policy.subscribe(watch)
    try:
        policy.catch_up()
        FreshnessWatch(policy, propagation).check()
    finally:
        propagation.close()
    assert len(watched) == 1
    assert policy.is_loaded

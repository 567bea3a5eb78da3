"""The thread beside the requests: a lost database is told once, and once when it is back."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import peewee
import pytest
from structlog.testing import capture_logs

from authsvc.jobs import client_id_jobs, policy_jobs
from authsvc.storage.background import BackgroundThread, Job

if TYPE_CHECKING:
    from authsvc.web.request_context import Services

SOON = 10.0


class Database:
    """Something to write to, and whether it is there."""

    lost = False

    def write(self) -> None:
        if self.lost:
            raise peewee.OperationalError("gone")


def nothing_to_write() -> None:
    """Work that needs no database at the moment."""


def told_of(background: BackgroundThread, *rounds: bool, database: Database) -> list[str]:
    """Let the thread's work be done in rounds, the database lost or not, and return what was logged."""
    with capture_logs() as logged:
        for lost in rounds:
            database.lost = lost
            for job in background._jobs:
                background._attempt(job.work)
    return [entry["event"] for entry in logged]


@pytest.mark.parametrize("first", [True, False])
def test_work_that_has_nothing_to_write_does_not_pass_for_the_databases_return(first: bool) -> None:
    database = Database()
    jobs = [Job(1.0, nothing_to_write), Job(1.0, database.write)]
    background = BackgroundThread("test", jobs if first else jobs[::-1])
    told = told_of(background, False, True, True, True, False, False, database=database)
    assert told == ["database lost; answering brokers from memory", "database is back"]


def test_every_loss_is_told() -> None:
    database = Database()
    background = BackgroundThread("test", [Job(1.0, database.write)])
    told = told_of(background, True, False, True, False, database=database)
    assert told == ["database lost; answering brokers from memory", "database is back"] * 2


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

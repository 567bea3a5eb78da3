"""The policy that a process keeps for those that it forks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from authsvc.server import shared_policy
from authsvc.server.shared_policy import SharedPolicy
from authsvc.storage.database import database, is_sqlite, read_transaction, session
from authsvc.storage.policy_cache import PolicyCache
from tests.storage.environment import create_user, database_gone, loaded_policy

if TYPE_CHECKING:
    from authsvc.settings import Settings


class Unreadable(PolicyCache):
    """A policy that cannot be read because of an error that no database raises."""

    tried = 0

    def catch_up(self) -> None:
        self.tried += 1
        raise RecursionError("a secret")


@pytest.mark.usefixtures("prepared")
def test_error_of_any_kind_is_logged_once_without_its_message_and_not_provoked_again_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unreadable = Unreadable()
    policy = SharedPolicy(unreadable)
    with capture_logs() as logged:
        policy.refresh()
        policy.refresh()
        policy.prepare_fork()
        assert unreadable.tried == 1
        monkeypatch.setattr(shared_policy, "monotonic", lambda: float("inf"))
        policy.refresh()
    assert unreadable.tried == 2
    assert [entry["error"] for entry in logged] == ["RecursionError"]
    assert "a secret" not in str(logged)
    assert not policy.snapshot.version


def test_first_read_that_failed_is_repeated(prepared: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = SharedPolicy(PolicyCache())
    with database_gone(prepared):
        policy.refresh()
    assert not policy.snapshot.version
    policy.refresh()
    assert not policy.snapshot.version, "it waits"
    monkeypatch.setattr(shared_policy, "monotonic", lambda: float("inf"))
    policy.refresh()
    assert policy.snapshot == loaded_policy().snapshot
    create_user("bob")
    policy.refresh()
    assert "bob" in policy.snapshot.users


@pytest.mark.usefixtures("prepared")
def test_time_limit_of_a_query_ends_with_the_transaction() -> None:
    if is_sqlite():
        pytest.skip("SQLite has no such limit")

    def limit() -> str:
        (value,) = database.execute_sql("SHOW statement_timeout").fetchone()
        return str(value)

    with session():
        with read_transaction(7):
            assert limit() == "7s"
        assert limit() == "0"

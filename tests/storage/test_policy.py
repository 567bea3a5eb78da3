"""The policy snapshot: content, cost of a refresh, and behaviour while the database is gone."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import peewee
import pytest

from authsvc.accounts import api_tokens, bootstrap, roles, signing_keys, users
from authsvc.credentials.passwords import PasswordVerifier
from authsvc.policy.access import READ, WRITE, AccessControl
from authsvc.policy.decision import Decision, Reason
from authsvc.policy.known_client_ids import KnownClientIds
from authsvc.policy.sharded_map import ShardedMap
from authsvc.policy.snapshot import GrantType, Snapshot
from authsvc.storage import policy_cache, policy_reader
from authsvc.storage.changes import KEPT_VERSIONS
from authsvc.storage.database import session
from authsvc.storage.models import PolicyChange
from authsvc.storage.policy_cache import PolicyCache
from tests.actors import ALICE, BOBS_PASSWORD, HASHER, OPERATOR, http, mqtt
from tests.storage.environment import (
    change_user,
    create_bob,
    create_role,
    create_user,
    database_gone,
    execute,
    loaded_policy,
    version,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from authsvc.settings import Settings

pytestmark = pytest.mark.usefixtures("prepared")

STATE = mqtt("write", "devices/%u/state")
COMMANDS = mqtt("read", "devices/%u/commands")


@pytest.fixture
def statements(caplog: pytest.LogCaptureFixture) -> Callable[[Callable[[], object]], list[str]]:
    """Return a function that returns the SQL statements of a call."""
    caplog.set_level(logging.DEBUG, logger="peewee")

    def taken_by(work: Callable[[], object]) -> list[str]:
        caplog.clear()
        work()
        return [str(record.msg[0]) for record in caplog.records if record.name == "peewee"]

    return taken_by


def access_by(known: PolicyCache) -> AccessControl:
    return AccessControl(
        known, PasswordVerifier(HASHER.pool, HASHER.pool, 10, cost=4), KnownClientIds(), lambda *_: None
    )


def log_in(access: AccessControl, password: str) -> Decision:
    """Return the decision on a login of bob."""
    while isinstance(outcome := access.may_log_in("bob", "", password, datetime.now(UTC)), Future):
        outcome.result()
    return outcome


def create_users(numbers: Iterable[int]) -> None:
    for n in numbers:
        create_user(f"device-{n}", password=None, roles=("devices",), permissions=(mqtt("read", f"own/{n}"),))


def test_every_request_is_denied_before_policy_is_loaded() -> None:
    fresh = PolicyCache()
    assert fresh.snapshot == Snapshot(ShardedMap(), {}, {}, 0)
    assert fresh.age == float("inf")
    access = access_by(fresh)
    assert log_in(access, BOBS_PASSWORD).reason is Reason.POLICY_NOT_LOADED
    assert access.may_access("bob", "", "a", READ).reason is Reason.POLICY_NOT_LOADED


def test_first_catch_up_loads_everything() -> None:
    create_role("devices", COMMANDS)
    made = create_bob(enabled=False, roles=("devices", "minimum-access"), permissions=(STATE, http("read", "/api/me")))
    api_tokens.issue_token(ALICE, "bob", "", 12)
    snapshot = loaded_policy().snapshot
    assert snapshot.version == version()
    assert set(snapshot.users) == {"admin", "bob"}
    assert set(snapshot.roles) == {"admin", "minimum-access", "devices"}
    assert len(snapshot.signing_keys) == 1
    bob = snapshot.users["bob"]
    assert (bob.username, bob.enabled, bob.grant_types) == ("bob", False, made.grant_types)
    assert (bob.permissions, bob.roles) == (made.permissions, made.roles)
    assert len(bob.tokens) == 1
    assert [rule.role for rule in snapshot.rules_of(bob)] == [None, None, "devices", "minimum-access"]


def test_repr_of_a_snapshot_contains_no_secret() -> None:
    create_bob()
    api_tokens.issue_token(ALICE, "bob", "", 12)
    snapshot = loaded_policy().snapshot
    shown = repr(snapshot)
    assert "$2b$" not in shown
    assert not any(digest in shown for digest in snapshot.users["bob"].tokens)
    assert not any(repr(key.secret) in shown for key in snapshot.signing_keys.values())


def test_change_is_in_force_after_catch_up() -> None:
    create_bob(permissions=(STATE,))
    known = loaded_policy()
    access = access_by(known)

    def may_publish() -> bool:
        known.catch_up()
        return bool(access.may_access("bob", "sensor-1", "devices/bob/state", WRITE))

    assert may_publish()
    change_user("bob", enabled=False)
    assert not may_publish()
    change_user("bob", enabled=True)
    assert may_publish()
    change_user("bob", permissions=())
    assert not may_publish()
    create_role("devices", STATE)
    change_user("bob", roles=("devices",))
    assert may_publish()
    roles.change(ALICE, "devices", {"permissions": (STATE, mqtt("write", "#", "deny"))})
    assert not may_publish()


def test_start_of_another_worker_does_not_change_the_snapshot(prepared: Settings) -> None:
    known = loaded_policy()
    before, entries = known.snapshot, dict(known.snapshot.users)
    bootstrap.prepare(prepared)
    known.catch_up()
    assert known.snapshot.users is before.users
    assert all(known.snapshot.users[name] is user for name, user in entries.items())


def test_workers_see_each_others_changes() -> None:
    one, other = loaded_policy(), loaded_policy()
    create_bob()
    one.catch_up()
    assert "bob" in one.snapshot.users
    assert "bob" not in other.snapshot.users
    other.catch_up()
    users.delete(ALICE, "bob")
    for known in (one, other):
        assert "bob" in known.snapshot.users
        known.catch_up()
        assert "bob" not in known.snapshot.users
        assert known.snapshot.version == version()


def test_catch_up_without_changes_takes_one_query(
    statements: Callable[[Callable[[], object]], list[str]],
) -> None:
    known = loaded_policy()
    before = known.snapshot
    assert len(statements(known.catch_up)) == 1
    assert known.snapshot is before


@pytest.mark.parametrize("change", [lambda: change_user("bob", enabled=False), lambda: users.delete(ALICE, "bob")])
def test_number_of_queries_does_not_depend_on_the_number_of_users(
    statements: Callable[[Callable[[], object]], list[str]], change: Callable[[], object]
) -> None:
    costs = []
    create_role("devices", STATE)
    known = loaded_policy()
    for n in range(2):
        create_bob()
        create_users(range(10 * n, 10 * n + 10))
        known.catch_up()
        others = dict(known.snapshot.users)
        change()
        costs.append(statements(known.catch_up))
        assert all(known.snapshot.users[name] is others[name] for name in set(others) - {"bob"})
        execute("DELETE FROM users WHERE username = 'bob'")
    assert costs[0] == costs[1]
    reads = [
        statement for statement in costs[0] if statement.startswith("SELECT") and "policy_version" not in statement
    ]
    assert reads
    assert all("WHERE" in statement for statement in reads)


def test_changed_role_updates_one_entry_regardless_of_its_users() -> None:
    create_role("devices", STATE)
    create_users(range(5))
    known = loaded_policy()
    users_before = dict(known.snapshot.users)
    roles.change(ALICE, "devices", {"permissions": (COMMANDS,)})
    known.catch_up()
    assert known.snapshot.roles["devices"].permissions == (COMMANDS,)
    assert all(known.snapshot.users[name] is user for name, user in users_before.items())


def test_many_changes_are_read_together() -> None:
    create_role("devices", STATE)
    known = loaded_policy()
    create_users(range(4))
    change_user("device-1", enabled=False)
    users.delete(ALICE, "device-2")
    create_role("screens", COMMANDS)
    roles.delete(ALICE, "screens")
    signing_keys.rotate(OPERATOR)
    known.catch_up()
    assert known.snapshot == loaded_policy().snapshot
    assert set(known.snapshot.users) == {"admin", "device-0", "device-1", "device-3"}
    assert len(known.snapshot.signing_keys) == 2


def test_user_created_again_has_no_old_rights() -> None:
    create_role("devices", STATE)
    create_bob(permissions=(STATE,))
    known = loaded_policy()
    users.delete(ALICE, "bob")
    roles.delete(ALICE, "devices")
    known.catch_up()
    assert "bob" not in known.snapshot.users
    assert "devices" not in known.snapshot.roles
    create_bob()
    create_role("devices")
    known.catch_up()
    assert known.snapshot.users["bob"].permissions == ()
    assert known.snapshot.roles["devices"].permissions == ()


def test_catch_up_adds_new_and_removes_revoked_tokens() -> None:
    create_bob(grant_types=frozenset({GrantType.TOKEN}))
    known = loaded_policy()
    access = access_by(known)
    issued = api_tokens.issue_token(ALICE, "bob", "", 12)
    known.catch_up()
    assert log_in(access, issued.token)
    api_tokens.revoke_token(ALICE, issued.record.id)
    known.catch_up()
    assert log_in(access, issued.token).reason is Reason.INVALID_TOKEN


def test_old_snapshot_does_not_change() -> None:
    create_bob(permissions=(STATE,))
    known = loaded_policy()
    held = known.snapshot.users["bob"]
    change_user("bob", permissions=(), enabled=False)
    known.catch_up()
    assert (held.enabled, held.permissions) == (True, (STATE,))
    with pytest.raises(AttributeError):
        held.enabled = False  # type: ignore[misc]


def test_database_with_an_older_version_is_read_completely() -> None:
    then = version()
    create_bob()
    create_user("bertha")
    known = loaded_policy()
    execute("DELETE FROM users WHERE username = 'bob'")
    execute(f"DELETE FROM policy_changes WHERE version > {then + 1}")
    execute(f"UPDATE policy_version SET version = {then + 1}")
    known.catch_up()
    assert known.snapshot == loaded_policy().snapshot
    assert "bob" not in known.snapshot.users


def test_worker_behind_the_kept_changes_reads_everything() -> None:
    known = loaded_policy()
    create_bob()
    execute(f"UPDATE policy_version SET version = {KEPT_VERSIONS + 999}")
    create_user("bertha")
    with session():
        oldest = PolicyChange.select(peewee.fn.MIN(PolicyChange.version)).scalar()
    assert oldest == version() == KEPT_VERSIONS + 1000
    known.catch_up()
    assert {"bob", "bertha"} <= set(known.snapshot.users)
    assert known.snapshot == loaded_policy().snapshot


def test_changes_are_kept_for_the_documented_number_of_versions() -> None:
    execute("UPDATE policy_version SET version = 999")
    create_bob()
    known = loaded_policy()
    create_user("bertha")
    execute(f"UPDATE policy_version SET version = {KEPT_VERSIONS + 999}")
    create_user("bruno")
    with session():
        kept = {change.name for change in PolicyChange.select()}
    assert kept == {"bertha", "bruno"}
    known.catch_up()
    assert {"bertha", "bruno"} <= set(known.snapshot.users)


def test_last_snapshot_answers_while_the_database_is_gone(prepared: Settings) -> None:
    create_bob(permissions=(STATE,))
    known = loaded_policy()
    access = access_by(known)
    before = known.snapshot
    with database_gone(prepared):
        for _ in range(2):
            with pytest.raises(peewee.OperationalError):
                known.catch_up()
        assert known.snapshot is before
        assert log_in(access, BOBS_PASSWORD)
        assert access.may_access("bob", "", "devices/bob/state", WRITE)
        with pytest.raises(peewee.OperationalError):
            change_user("bob", enabled=False)
    change_user("bob", enabled=False)
    known.catch_up()
    assert not known.snapshot.users["bob"].enabled


def test_token_uses_are_kept_while_the_database_is_gone(prepared: Settings) -> None:
    uses = {"digest": datetime(2026, 11, 20, 8, 0, tzinfo=UTC)}
    with database_gone(prepared), pytest.raises(peewee.OperationalError):
        api_tokens.store_uses(uses)
    assert uses
    api_tokens.store_uses(uses)
    assert not uses


def test_age_counts_from_the_last_successful_catch_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    known = loaded_policy()
    clock[0] += 3
    assert known.age == 3
    known.catch_up()
    assert known.age == 0
    clock[0] += 5
    execute("ALTER TABLE policy_version RENAME TO elsewhere")
    with pytest.raises(peewee.DatabaseError):
        known.catch_up()
    assert known.age == 5


SECRET = mqtt("read", "secret/#", "deny")


def move_the_deny_rule() -> None:
    """Move a deny rule from bob's role to bob in two changes, so that it applies at all times."""
    change_user("bob", permissions=(SECRET,))
    roles.change(ALICE, "devices", {"permissions": (mqtt("read", "#"),)})


@pytest.fixture
def breaking_at() -> Iterator[Callable[[int], list[str]]]:
    """Return a function that makes the nth SQL statement from now on fail and returns the list of statements."""
    log = logging.getLogger("peewee")
    added: list[Callable[[logging.LogRecord], bool]] = []
    level = log.level
    log.setLevel(logging.DEBUG)

    def let_fail(number: int) -> list[str]:
        seen: list[str] = []

        def watch(record: logging.LogRecord) -> bool:
            seen.append(str(record.msg[0]))
            if len(seen) == number:
                raise peewee.OperationalError("the connection was lost")
            return False

        for earlier in added:
            log.removeFilter(earlier)
        log.addFilter(watch)
        added.append(watch)
        return seen

    yield let_fail
    for each in added:
        log.removeFilter(each)
    log.setLevel(level)


def test_error_at_any_query_leaves_the_policy_unchanged(
    breaking_at: Callable[[int], list[str]],
) -> None:
    create_role("devices", mqtt("read", "#"), SECRET)
    create_bob(roles=("devices",))
    known = loaded_policy()
    access, before = access_by(known), known.snapshot
    entries = (dict(before.users), dict(before.roles), before.signing_keys, before.version)
    move_the_deny_rule()
    signing_keys.rotate(OPERATOR)
    statements = breaking_at(0)
    loaded_policy_elsewhere = PolicyCache()
    loaded_policy_elsewhere.snapshot = before
    loaded_policy_elsewhere.catch_up()
    count = len(statements)
    assert count > 5
    for number in range(1, count + 1):
        breaking_at(number)
        with pytest.raises(peewee.OperationalError):
            known.catch_up()
        breaking_at(0)
        now = known.snapshot
        assert (dict(now.users), dict(now.roles), now.signing_keys, now.version) == entries, number
        assert not access.may_access("bob", "", "secret/plan", READ)
    known.catch_up()
    assert known.snapshot == loaded_policy().snapshot
    assert not access.may_access("bob", "", "secret/plan", READ)


def test_snapshot_never_mixes_a_changed_role_with_an_old_user() -> None:
    create_role("devices", mqtt("read", "#"), SECRET)
    create_bob(roles=("devices",))
    known = loaded_policy()
    held = known.snapshot
    move_the_deny_rule()
    known.catch_up()
    for snapshot in (held, known.snapshot):
        rules = snapshot.rules_of(snapshot.users["bob"])
        assert SECRET in [rule.permission for rule in rules]
    assert held.version < known.snapshot.version


def test_user_is_never_visible_without_its_new_role() -> None:
    known = loaded_policy()
    held = known.snapshot
    create_role("devices", mqtt("read", "#"), SECRET)
    create_bob(roles=("devices",))
    known.catch_up()
    assert "bob" not in held.users
    assert set(known.snapshot.users["bob"].roles) <= set(known.snapshot.roles)


def test_user_changed_during_a_read_is_seen_before_or_after(monkeypatch: pytest.MonkeyPatch) -> None:
    create_bob(roles=("admin",), enabled=False)
    known = PolicyCache()
    read_roles = policy_reader.role_policies

    def change_during_the_read(*arguments: Any) -> Any:
        monkeypatch.undo()
        changing = threading.Thread(target=change_user, args=("bob",), kwargs={"roles": (), "enabled": True})
        changing.start()
        changing.join()
        return read_roles(*arguments)

    # Roles are read before users.
    monkeypatch.setattr(policy_reader, "role_policies", change_during_the_read)
    known.catch_up()
    bob = known.snapshot.users["bob"]
    assert (bob.roles, bob.enabled) in [(("admin",), False), ((), True)]


def test_snapshot_of_one_user_reads_only_this_user() -> None:
    create_role("devices", STATE)
    bob = create_bob(roles=("devices",), permissions=(COMMANDS,))
    snapshot = policy_cache.snapshot_of("bob")
    assert set(snapshot.users) == {"bob"}
    rules = list(snapshot.rules_of(snapshot.users["bob"]))
    assert [rule.permission for rule in rules] == [*bob.permissions, STATE]
    assert not policy_cache.snapshot_of("nobody").users

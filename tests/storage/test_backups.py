"""Backup and restore within and between SQLite and PostgreSQL."""

from __future__ import annotations

import errno
import gzip
import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from authsvc.accounts import api_tokens, bootstrap, roles, users
from authsvc.activity.decision_stats import DecisionStats
from authsvc.activity.denials import Denials
from authsvc.errors import Conflict
from authsvc.policy.decision import Denial, Reason
from authsvc.storage import backup, models
from authsvc.storage.database import is_sqlite
from registry import models as registry_models
from tests.actors import ALICE, http, mqtt
from tests.http.wire import within
from tests.storage.environment import (
    all_rows,
    change_user,
    create_bob,
    create_role,
    create_user,
    events,
    execute,
    loaded_policy,
    version,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from authsvc.settings import Settings
    from authsvc.storage.fields import Model

TABLES = (*models.ALL, *registry_models.ALL)


@pytest.fixture
def database_with_rows(prepared: Settings) -> Settings:
    """Return the settings of a service with a row in most tables, and more of one than one statement inserts."""
    many = (mqtt("read", rf"lines/{number}/ü \t") for number in range(300))
    create_role("devices", mqtt("write", "devices/%u/#"), *many, description="ü 'quoted' \\ back\nslash")
    create_bob(roles=("devices",), permissions=(http("read", "/api/me", "deny"),), enabled=False)
    issued = api_tokens.issue_token(ALICE, "bob", "wall", 12)
    api_tokens.store_uses(dict.fromkeys(loaded_policy().snapshot.users["bob"].tokens, issued.record.created_at))
    change_user("bob", password=None)
    denied = Denials()
    denied.note(Denial("bob", "sensor-1", "lines/ü", 2, Reason.NO_PERMISSION))
    denied.store()
    counted = Counter[tuple[str, bool]]()
    history = DecisionStats(counted)
    counted["user", True] += 1
    history.store()
    return prepared


def replace_by_empty_database(settings: Settings) -> None:
    """Replace the database by a new, migrated and empty one."""
    if is_sqlite():
        Path(settings.database_url.removeprefix("sqlite:///")).unlink()
    else:
        execute("DROP SCHEMA public CASCADE")
        execute("CREATE SCHEMA public")
    bootstrap.open_database(settings)
    bootstrap.migrate(settings)


def test_restore_returns_all_rows(database_with_rows: Settings, tmp_path: Path) -> None:
    before, known = all_rows(), loaded_policy()
    written = backup.backup(tmp_path / "backup.gz", TABLES)
    replace_by_empty_database(database_with_rows)
    assert backup.restore(tmp_path / "backup.gz", TABLES) == written == sum(map(len, before.values()))
    assert {**all_rows(), "PolicyVersion": 0} == {**before, "PolicyVersion": 0}
    restored = loaded_policy().snapshot
    assert (restored.users, restored.roles) == (known.snapshot.users, known.snapshot.roles)
    assert restored.signing_keys == known.snapshot.signing_keys


def test_rows_can_be_added_after_a_restore(database_with_rows: Settings, tmp_path: Path) -> None:
    backup.backup(tmp_path / "backup.gz", TABLES)
    replace_by_empty_database(database_with_rows)
    backup.restore(tmp_path / "backup.gz", TABLES)
    create_user("bertha", roles=("devices",), permissions=(mqtt("read", "a"),))
    create_role("screens", mqtt("read", "b"))
    api_tokens.issue_token(ALICE, "bertha", "", 12)
    users.delete(ALICE, "bob")
    assert events()[-1].action == "user.delete"
    assert roles.get("screens").permissions == (mqtt("read", "b"),)


def test_backup_can_be_restored_into_the_other_kind_of_database(database_with_rows: Settings, tmp_path: Path) -> None:
    before = all_rows()
    backup.backup(tmp_path / "backup.gz", TABLES)
    (tmp_path / "elsewhere").mkdir()
    elsewhere = replace(database_with_rows, database_url=f"sqlite:///{tmp_path}/elsewhere/authsvc.db")
    bootstrap.open_database(elsewhere)
    bootstrap.migrate(elsewhere)
    assert is_sqlite()
    backup.restore(tmp_path / "backup.gz", TABLES)
    assert {**all_rows(), "PolicyVersion": 0} == {**before, "PolicyVersion": 0}


def test_restore_into_a_used_database_is_refused(database_with_rows: Settings, tmp_path: Path) -> None:
    backup.backup(tmp_path / "backup.gz", TABLES)
    before = all_rows()
    with pytest.raises(Conflict) as error:
        backup.restore(tmp_path / "backup.gz", TABLES)
    assert error.value.code == "database-not-empty"
    assert all_rows() == before


def test_truncated_backup_restores_nothing(database_with_rows: Settings, tmp_path: Path) -> None:
    backup.backup(tmp_path / "backup.gz", TABLES)
    lines = gzip.decompress((tmp_path / "backup.gz").read_bytes()).splitlines(keepends=True)
    (tmp_path / "broken.gz").write_bytes(gzip.compress(b"".join(lines[:8]) + lines[8][:5]))
    replace_by_empty_database(database_with_rows)
    before = all_rows()
    with pytest.raises(Conflict):
        backup.restore(tmp_path / "broken.gz", TABLES)
    assert all_rows() == before


def test_backup_with_a_row_twice_restores_nothing(database_with_rows: Settings, tmp_path: Path) -> None:
    backup.backup(tmp_path / "backup.gz", TABLES)
    lines = gzip.decompress((tmp_path / "backup.gz").read_bytes()).splitlines(keepends=True)
    last = max(number for number, line in enumerate(lines) if line.startswith(b'["permissions"'))
    (tmp_path / "broken.gz").write_bytes(gzip.compress(b"".join([*lines[: last + 1], *lines[last:]])))
    replace_by_empty_database(database_with_rows)
    before = all_rows()
    with pytest.raises(Conflict) as error:
        backup.restore(tmp_path / "broken.gz", TABLES)
    assert error.value.code == "not-a-backup"
    assert all_rows() == before


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not gzip",
        gzip.compress(b"", mtime=0),
        gzip.compress(b"[]\n", mtime=0),
        gzip.compress(b'{"format": 99}\n', mtime=0),
    ],
)
def test_file_that_is_no_backup_is_refused(database_with_rows: Settings, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "something").write_bytes(content)
    replace_by_empty_database(database_with_rows)
    with pytest.raises(Conflict) as error:
        backup.restore(tmp_path / "something", TABLES)
    assert error.value.code == "not-a-backup"


def test_backup_has_mode_0600_and_never_overwrites(database_with_rows: Settings, tmp_path: Path) -> None:
    file = tmp_path / "backup.gz"
    backup.backup(file, TABLES)
    content = file.read_bytes()
    assert file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(Conflict):
        backup.backup(file, TABLES)
    assert file.read_bytes() == content


def test_worker_reads_everything_again_after_a_restore(database_with_rows: Settings, tmp_path: Path) -> None:
    backup.backup(tmp_path / "backup.gz", TABLES)
    create_user("bertha")
    known = loaded_policy()
    replace_by_empty_database(database_with_rows)
    backup.restore(tmp_path / "backup.gz", TABLES)
    create_user("bruno")
    assert version() >= known.snapshot.version
    known.catch_up()
    assert set(known.snapshot.users) == {"admin", "bob", "bruno"}


# Interruptions.


class TablesThatRaise:
    """Yields the first table, then raises an error; `seen` lists the files in the directory at that moment."""

    def __init__(self, error: BaseException, directory: Path) -> None:
        self.seen: list[str] = []
        self._error = error
        self._directory = directory

    def __iter__(self) -> Iterator[type[Model]]:
        yield TABLES[0]
        self.seen = [file.name for file in self._directory.iterdir()]
        raise self._error


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "disk full"), KeyboardInterrupt()], ids=["full", "interrupted"]
)
def test_failed_backup_leaves_no_file(database_with_rows: Settings, tmp_path: Path, error: BaseException) -> None:
    directory = tmp_path / "backups"
    directory.mkdir()
    tables = TablesThatRaise(error, directory)
    with pytest.raises(type(error)):
        backup.backup(directory / "backup.gz", tables)
    assert tables.seen
    assert "backup.gz" not in tables.seen
    assert list(directory.iterdir()) == []


def test_file_created_during_a_backup_is_not_overwritten(database_with_rows: Settings, tmp_path: Path) -> None:
    file = tmp_path / "backup.gz"

    def tables() -> Iterator[type[Model]]:
        yield TABLES[0]
        file.write_text("somebody else's")

    with pytest.raises(Conflict) as error:
        backup.backup(file, tables())
    assert error.value.code == "file-exists"
    assert file.read_text() == "somebody else's"
    assert [each.name for each in tmp_path.iterdir() if "backup" in each.name] == ["backup.gz"]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True, ids=[""])
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted_backup_leaves_no_file(database_with_rows: Settings, tmp_path: Path, kind: signal.Signals) -> None:
    directory = tmp_path / "backups"
    directory.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AUTHSVC_")}
    environment |= {
        "AUTHSVC_DATABASE_URL": database_with_rows.database_url,
        "AUTHSVC_DATA_DIR": str(database_with_rows.data_dir),
    }
    with psycopg.connect(database_with_rows.database_url) as holder:
        # The audit trail is among the last tables, so the backup stops half way and waits.
        holder.execute("LOCK TABLE audit_events IN ACCESS EXCLUSIVE MODE")
        command = [str(Path(sys.executable).parent / "authsvc"), "backup", str(directory / "backup.gz")]
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'audit_events'::regclass)"
        with psycopg.connect(database_with_rows.database_url, autocommit=True) as observer:
            assert within(20, lambda: bool(observer.execute(waits).fetchone() == (True,)))
        assert len(list(directory.iterdir())) == 1
        process.send_signal(kind)
        assert process.wait(20) != 0
        left = list(directory.iterdir())
    assert directory / "backup.gz" not in left
    assert kind is signal.SIGKILL or left == []

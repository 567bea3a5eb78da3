"""`authsvc init`, `migrate`, `serve`, `backup` and `restore`."""

from __future__ import annotations

import gzip
import json
import shutil
import stat
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from authsvc import __version__
from authsvc.accounts import bootstrap
from authsvc.app import create_app
from authsvc.settings import Settings
from authsvc.storage.database import create_file, database
from tests.http.callers import Caller, basic, everything_stored
from tests.http.console import Console, error_of, stdout_of
from tests.http.seed_data import ALICES_PASSWORD
from tests.service import Service, permission

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flask.testing import FlaskClient

    Damage = Callable[[bytes], bytes]


@pytest.fixture
def fresh(tmp_path: Path) -> Service:
    """The command line without a database and without settings."""
    service = Service(tmp_path)
    del service.environment["AUTHSVC_ADMIN_PASSWORD"]
    return service


@pytest.fixture
def console(fresh: Service, capsys: pytest.CaptureFixture[str]) -> Iterator[Console]:
    """The same command line in the test's own process."""
    yield Console(fresh.environment, capsys)
    database.initialize(None)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _data(service: Service | Console) -> Path:
    return Path(service.environment["AUTHSVC_DATA_DIR"])


def _client(data_dir: Path, url: str = "") -> FlaskClient:
    """Return a client of the service with this data."""
    settings = Settings(data_dir=data_dir, database_url=url or f"sqlite:///{data_dir}/authsvc.db", bcrypt_cost=4)
    bootstrap.open_database(settings)
    return create_app(settings).test_client()


# The first start.


def test_init_prints_a_generated_password_once(fresh: Service) -> None:
    words = stdout_of(fresh.command("init")).split()
    assert words.count("password") == 2, "once for the administrator's, once in the command that sets another"
    password = words[words.index("password") + 1]
    assert len(password) >= 12
    assert stdout_of(fresh.command("init")) == ""
    answer = Caller(_client(_data(fresh)), basic("admin", password)).get("/api/me")
    assert answer.get_json()["roles"] == ["admin"]
    assert password not in json.dumps(stdout_of(fresh.command("audit", "--json")))


def test_init_uses_the_given_password_and_prints_nothing(fresh: Service) -> None:
    fresh.environment["AUTHSVC_ADMIN_PASSWORD"] = "chosen by the operator"
    assert stdout_of(fresh.command("init")) == ""
    answer = Caller(_client(_data(fresh)), basic("admin", "chosen by the operator")).get("/api/me")
    assert answer.status_code == 200


def test_init_keeps_a_changed_administrator_password(shell: Service) -> None:
    shell.environment["AUTHSVC_ADMIN_PASSWORD"] = "another one altogether"
    assert stdout_of(shell.command("init")) == ""
    answer = Caller(_client(_data(shell)), basic("admin", "another one altogether")).get("/api/me")
    assert answer.status_code == 401


def test_files_of_init_are_readable_by_their_owner_only(fresh: Service) -> None:
    stdout_of(fresh.command("init"))
    assert _mode(_data(fresh)) == 0o700
    assert _mode(_data(fresh) / "authsvc.db") == 0o600


def test_administrator_password_must_fit_the_policy(console: Console) -> None:
    console.environment["AUTHSVC_ADMIN_PASSWORD"] = "four"
    assert error_of(console.command("init")) == "password: must have at least 5 characters"
    console.environment["AUTHSVC_ADMIN_PASSWORD"] = "good enough"
    assert stdout_of(console.command("init")) == ""


def test_migrate_prints_the_applied_migrations(console: Console) -> None:
    _data(console).mkdir(0o700)
    create_file(f"sqlite:///{_data(console)}/authsvc.db")
    assert "applied 0001_foundation" in stdout_of(console.command("migrate")).splitlines()
    assert stdout_of(console.command("migrate")) == "nothing to do\n"


@pytest.mark.parametrize(
    "arguments",
    [["users", "list"], ["explain", "bob", "read", "a"], ["backup", "b.gz"], ["migrate"], ["check"], ["ca", "show"]],
    ids=" ".join,
)
def test_command_without_a_database_names_the_directory_and_creates_nothing(
    console: Console, arguments: list[str]
) -> None:
    words = error_of(console.command(*arguments))
    assert words.startswith(f"there is no database authsvc.db in {_data(console)}; ")
    assert words.endswith("with: authsvc init")
    assert not _data(console).exists()


def test_command_before_the_tables_exist_says_what_to_do(console: Console) -> None:
    _data(console).mkdir(0o700)
    create_file(f"sqlite:///{_data(console)}/authsvc.db")
    assert "run `authsvc init` first" in error_of(console.command("users", "list"))


def test_init_reports_a_running_service_with_another_database(fresh: Service, tmp_path: Path) -> None:
    fresh.environment["AUTHSVC_ADMIN_PASSWORD"] = "chosen by the operator"
    with fresh:
        assert fresh.command("init").stderr == "", "the service has this database"
        other = tmp_path / "elsewhere"
        fresh.environment["AUTHSVC_DATA_DIR"] = str(other)
        done = fresh.command("init")
    assert done.returncode == 0
    assert done.stderr.startswith(f"A service with another database runs on 127.0.0.1:{fresh.port}.")
    assert f"they use {other}/authsvc.db" in done.stderr


def test_init_reports_no_service_that_is_not_authsvc(console: Console) -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        console.environment["AUTHSVC_BIND"] = f"127.0.0.1:{server.server_port}"
        console.environment["AUTHSVC_ADMIN_PASSWORD"] = "chosen by the operator"
        assert "another database" not in console.command("init").stderr


def test_version_is_printed(console: Console) -> None:
    assert stdout_of(console.command("--version")) == f"authsvc, version {__version__}\n"


def test_help_names_every_command(console: Console) -> None:
    printed = stdout_of(console.command("-h"))
    names = ["audit", "backup", "check", "explain", "init", "migrate", "restore", "roles", "serve", "tokens", "users"]
    assert [name for name in names if f"\n  {name} " not in printed] == []


# Settings.


@pytest.mark.parametrize("command", ["serve", "init", "users"])
def test_unknown_setting_stops_every_command(console: Console, command: str) -> None:
    console.environment["AUTHSVC_COLOUR"] = "blue"
    done = console.command(command, *(["list"] if command == "users" else []))
    assert error_of(done).startswith("AUTHSVC_COLOUR is not a setting")
    assert not _data(console).exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AUTHSVC_BCRYPT_COST", "cheap"),
        ("AUTHSVC_BIND", "everywhere"),
        ("AUTHSVC_WEBHOOK_SECRET", ""),
        ("AUTHSVC_WEBHOOK_SECRET_FILE", "/no/such/file"),
        ("AUTHSVC_DATABASE_URL", "mysql://user:word-in-url@host/name"),
        ("AUTHSVC_PASSWORD_POLICY", "{"),
    ],
)
def test_malformed_setting_is_named_without_its_value(console: Console, name: str, value: str) -> None:
    console.environment[name] = value
    words = error_of(console.command("init"))
    assert words.startswith(name)
    assert "word-in-url" not in words


def test_impossible_data_directory_is_a_one_line_error(console: Console, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    console.environment["AUTHSVC_DATA_DIR"] = str(tmp_path / "file" / "data")
    error_of(console.command("init"))


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o770, 0o711, 0o755])
@pytest.mark.parametrize("command", [["serve"], ["init"], ["users", "list"]], ids=" ".join)
def test_an_open_data_directory_is_refused_with_the_command_that_closes_it(
    console: Console, command: list[str], mode: int
) -> None:
    directory = _data(console)
    directory.mkdir()
    directory.chmod(mode)
    assert error_of(console.command(*command)).endswith(f"close it with: chmod 700 {directory}")
    assert list(directory.iterdir()) == []


def test_an_open_database_file_is_refused_with_the_command_that_closes_it(console: Console) -> None:
    stdout_of(console.command("init"))
    file = _data(console) / "authsvc.db"
    for mode in (0o640, 0o604, 0o660, 0o644):
        file.chmod(mode)
        assert error_of(console.command("users", "list")).endswith(f"close it with: chmod 600 {file}")
    file.chmod(0o600)
    stdout_of(console.command("users", "list"))


def test_the_command_that_closes_a_directory_can_be_pasted_whatever_its_name(console: Console, tmp_path: Path) -> None:
    directory = tmp_path / "it's; here"
    directory.mkdir()
    directory.chmod(0o755)
    console.environment["AUTHSVC_DATA_DIR"] = str(directory)
    command = error_of(console.command("init")).partition("close it with: ")[2]
    subprocess.run(["sh", "-c", command], check=True)
    assert _mode(directory) == 0o700


def test_unreachable_database_is_a_one_line_error(console: Console, tmp_path: Path) -> None:
    console.environment["AUTHSVC_DATABASE_URL"] = "postgresql://nobody:word-in-url@127.0.0.1:1/none"
    words = error_of(console.command("users", "list"))
    assert words.startswith("the database cannot be used")
    assert "word-in-url" not in words
    console.environment["AUTHSVC_DATABASE_URL"] = f"sqlite:///{tmp_path}/no/such/directory/authsvc.db"
    error_of(console.command("users", "list"))


@pytest.mark.parametrize("bind", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"])
def test_serve_refuses_to_be_reached_by_others_without_a_webhook_secret(console: Console, bind: str) -> None:
    console.environment["AUTHSVC_BIND"] = bind
    assert error_of(console.command("serve")).startswith("AUTHSVC_WEBHOOK_SECRET must be set")
    assert not _data(console).exists()


# Backup and restore.


@pytest.fixture
def original(tmp_path: Path, seed_directory: Path) -> Service:
    """The command line of the service with the seed data."""
    shutil.copytree(seed_directory, tmp_path / "original" / "data")
    return Service(tmp_path / "original")


@pytest.fixture
def twin(tmp_path: Path, database_url: str) -> Service:
    """The command line of an empty service, on SQLite and on PostgreSQL."""
    other = tmp_path / "twin"
    other.mkdir()
    return Service(other, {"AUTHSVC_DATABASE_URL": database_url.replace(f"{tmp_path}/data", f"{other}/data")})


@pytest.fixture(scope="session")
def backup(seed_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A backup of the service with the seed data."""
    file = tmp_path_factory.mktemp("backup") / "backup.gz"
    stdout_of(Service(seed_directory.parent).command("backup", str(file)))
    return file.read_bytes()


def test_restore_brings_back_all_rows(original: Service, twin: Service, tmp_path: Path) -> None:
    token = stdout_of(original.command("tokens", "create", "alice", "--label", "kept")).strip()
    file = tmp_path / "backup.gz"
    assert stdout_of(original.command("backup", str(file))).endswith(f"rows written to {file}\n")
    assert f"rows restored from {file}" in stdout_of(twin.command("restore", str(file)))
    _client(_data(original))
    (_, version), everything = _version_and_rest()
    alice = Caller(_client(_data(twin), twin.environment["AUTHSVC_DATABASE_URL"]), f"Bearer {token}")
    (_, version_now), everything_now = _version_and_rest()
    assert everything_now == everything
    # A version must never decrease, because a client that has seen it has seen all changes up to it.
    assert version_now >= version
    assert alice.get("/api/me").get_json()["username"] == "alice"


def _version_and_rest() -> tuple[tuple[int, int], dict[str, Any]]:
    rows = everything_stored()
    (version,) = rows.pop("policy_version")
    return (version[0], version[1]), rows


def test_restored_service_accepts_changes(backup: bytes, twin: Service, tmp_path: Path) -> None:
    file = tmp_path / "backup.gz"
    file.write_bytes(backup)
    stdout_of(twin.command("restore", str(file)))
    client = _client(_data(twin), twin.environment["AUTHSVC_DATABASE_URL"])
    alice = Caller(client).signs_in("alice", ALICES_PASSWORD)
    alice.creates_user("press-7", roles=["line"], permissions=[permission("read a")])
    assert alice.get("/api/audit").get_json()["items"][0]["target"] == "user:press-7"


def test_backup_is_readable_by_its_owner_only_and_never_overwrites(shell: Service, tmp_path: Path) -> None:
    file = tmp_path / "backup.gz"
    stdout_of(shell.command("backup", str(file)))
    assert _mode(file) == 0o600
    content = file.read_bytes()
    assert "never overwrites" in error_of(shell.command("backup", str(file)))
    assert file.read_bytes() == content


def test_failed_backup_is_a_one_line_error(shell: Service, tmp_path: Path) -> None:
    error_of(shell.command("backup", str(tmp_path / "no" / "such" / "directory" / "backup.gz")))


def test_restore_needs_an_empty_database(shell: Service, backup: bytes, tmp_path: Path) -> None:
    file = tmp_path / "backup.gz"
    file.write_bytes(backup)
    before = everything_stored()
    assert "not empty" in error_of(shell.command("restore", str(file)))
    assert everything_stored() == before


def _whole(backup: bytes, more: bytes) -> bytes:
    return gzip.compress(gzip.decompress(backup) + more)


DAMAGES: dict[str, Damage] = {
    "empty": lambda _: b"",
    "no gzip": lambda _: b"no gzip at all",
    "cut off": lambda backup: backup[: len(backup) // 2],
    "another gzip": lambda _: gzip.compress(b"hello\n"),
    "no migrations": lambda _: gzip.compress(b'{"format": 1}\n'),
    "half a line": lambda backup: gzip.compress(gzip.decompress(backup)[:-20]),
    "an unknown table": lambda backup: _whole(backup, b'["secrets", [1]]\n'),
    "a row too short": lambda backup: _whole(backup, b'["users", [1]]\n'),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_backup_changes_nothing(console: Console, backup: bytes, tmp_path: Path, damage: Damage) -> None:
    file = tmp_path / "backup.gz"
    file.write_bytes(damage(backup))
    error_of(console.command("restore", str(file)))
    _client(_data(console))
    assert everything_stored()["users"] == []

"""`authsvc init`, `migrate`, `serve`, `backup` and `restore`: the life of a service as its operator sees it."""

from __future__ import annotations

import gzip
import json
import shutil
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from authsvc import __version__
from authsvc.accounts import bootstrap
from authsvc.app import create_app
from authsvc.settings import Settings
from authsvc.storage.database import database
from tests.http.callers import Caller, basic, everything_stored
from tests.http.console import Console, complaint, said
from tests.http.seed_data import ALICES_PASSWORD
from tests.service import Service, permission

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flask.testing import FlaskClient

    Damage = Callable[[bytes], bytes]


@pytest.fixture
def fresh(tmp_path: Path) -> Service:
    """The command line of a service that never ran and was told nothing."""
    service = Service(tmp_path)
    del service.environment["AUTHSVC_ADMIN_PASSWORD"]
    return service


@pytest.fixture
def console(fresh: Service, capsys: pytest.CaptureFixture[str]) -> Iterator[Console]:
    """The same without a process of its own."""
    yield Console(fresh.environment, capsys)
    database.initialize(None)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _data(service: Service | Console) -> Path:
    return Path(service.environment["AUTHSVC_DATA_DIR"])


def _client(data_dir: Path, url: str = "") -> FlaskClient:
    """Return a client of the service that would run on this data."""
    settings = Settings(data_dir=data_dir, database_url=url or f"sqlite:///{data_dir}/authsvc.db", bcrypt_cost=4)
    bootstrap.open_database(settings)
    return create_app(settings).test_client()


# The first start.


def test_init_tells_a_generated_password_once_and_it_works(fresh: Service) -> None:
    words = said(fresh.command("init")).split()
    assert words.count("password") == 2, "once for the administrator's, once in the command that sets another"
    password = words[words.index("password") + 1]
    assert len(password) >= 12
    assert said(fresh.command("init")) == ""
    answer = Caller(_client(_data(fresh)), basic("admin", password)).get("/api/me")
    assert answer.get_json()["roles"] == ["admin"]
    assert password not in json.dumps(said(fresh.command("audit", "--json")))


def test_init_takes_the_password_it_is_given_and_tells_nothing(fresh: Service) -> None:
    fresh.environment["AUTHSVC_ADMIN_PASSWORD"] = "chosen by the operator"
    assert said(fresh.command("init")) == ""
    answer = Caller(_client(_data(fresh)), basic("admin", "chosen by the operator")).get("/api/me")
    assert answer.status_code == 200


def test_init_leaves_an_administrators_new_password_alone(shell: Service) -> None:
    shell.environment["AUTHSVC_ADMIN_PASSWORD"] = "another one altogether"
    assert said(shell.command("init")) == ""
    answer = Caller(_client(_data(shell)), basic("admin", "another one altogether")).get("/api/me")
    assert answer.status_code == 401


def test_what_init_makes_is_for_its_owner_alone(fresh: Service) -> None:
    said(fresh.command("init"))
    assert _mode(_data(fresh)) == 0o700
    assert _mode(_data(fresh) / "authsvc.db") == 0o600


def test_a_password_that_the_policy_refuses_stops_the_first_start(console: Console) -> None:
    console.environment["AUTHSVC_ADMIN_PASSWORD"] = "four"
    assert complaint(console.command("init")) == "password: must have at least 5 characters"
    console.environment["AUTHSVC_ADMIN_PASSWORD"] = "good enough"
    assert said(console.command("init")) == ""


def test_migrate_says_what_it_did(console: Console) -> None:
    assert "applied 0001_foundation" in said(console.command("migrate")).splitlines()
    assert said(console.command("migrate")) == "nothing to do\n"


@pytest.mark.parametrize("arguments", [["users", "list"], ["explain", "bob", "read", "a"], ["backup", "b.gz"]])
def test_a_command_before_init_says_what_to_do_first(console: Console, arguments: list[str]) -> None:
    assert "run `authsvc init` first" in complaint(console.command(*arguments))


def test_the_version_is_told(console: Console) -> None:
    assert said(console.command("--version")) == f"authsvc, version {__version__}\n"


def test_help_names_every_command(console: Console) -> None:
    told = said(console.command("-h"))
    names = ["audit", "backup", "check", "explain", "init", "migrate", "restore", "roles", "serve", "tokens", "users"]
    assert [name for name in names if f"\n  {name} " not in told] == []


# Settings.


@pytest.mark.parametrize("command", ["serve", "init", "users"])
def test_a_setting_nobody_knows_stops_every_command(console: Console, command: str) -> None:
    console.environment["AUTHSVC_COLOUR"] = "blue"
    done = console.command(command, *(["list"] if command == "users" else []))
    assert complaint(done).startswith("AUTHSVC_COLOUR is not a setting")
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
def test_a_malformed_setting_is_named_and_its_value_is_not(console: Console, name: str, value: str) -> None:
    console.environment[name] = value
    words = complaint(console.command("init"))
    assert words.startswith(name)
    assert "word-in-url" not in words


def test_a_data_directory_that_cannot_be_is_one_line(console: Console, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    console.environment["AUTHSVC_DATA_DIR"] = str(tmp_path / "file" / "data")
    complaint(console.command("init"))


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o770, 0o711, 0o755])
@pytest.mark.parametrize("command", [["serve"], ["init"], ["users", "list"]], ids=" ".join)
def test_an_open_data_directory_is_refused_with_the_command_that_closes_it(
    console: Console, command: list[str], mode: int
) -> None:
    directory = _data(console)
    directory.mkdir()
    directory.chmod(mode)
    assert complaint(console.command(*command)).endswith(f"close it with: chmod 700 {directory}")
    assert list(directory.iterdir()) == []


def test_an_open_database_file_is_refused_with_the_command_that_closes_it(console: Console) -> None:
    said(console.command("init"))
    file = _data(console) / "authsvc.db"
    for mode in (0o640, 0o604, 0o660, 0o644):
        file.chmod(mode)
        assert complaint(console.command("users", "list")).endswith(f"close it with: chmod 600 {file}")
    file.chmod(0o600)
    said(console.command("users", "list"))


def test_the_command_that_closes_a_directory_can_be_pasted_whatever_its_name(console: Console, tmp_path: Path) -> None:
    directory = tmp_path / "it's; here"
    directory.mkdir()
    directory.chmod(0o755)
    console.environment["AUTHSVC_DATA_DIR"] = str(directory)
    command = complaint(console.command("init")).partition("close it with: ")[2]
    subprocess.run(["sh", "-c", command], check=True)
    assert _mode(directory) == 0o700


def test_a_database_that_cannot_be_reached_is_one_line(console: Console, tmp_path: Path) -> None:
    console.environment["AUTHSVC_DATABASE_URL"] = "postgresql://nobody:word-in-url@127.0.0.1:1/none"
    words = complaint(console.command("users", "list"))
    assert words.startswith("the database cannot be used")
    assert "word-in-url" not in words
    console.environment["AUTHSVC_DATABASE_URL"] = f"sqlite:///{tmp_path}/no/such/directory/authsvc.db"
    complaint(console.command("users", "list"))


@pytest.mark.parametrize("bind", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"])
def test_serve_refuses_to_be_reached_by_others_without_a_webhook_secret(console: Console, bind: str) -> None:
    console.environment["AUTHSVC_BIND"] = bind
    assert complaint(console.command("serve")).startswith("AUTHSVC_WEBHOOK_SECRET must be set")
    assert not _data(console).exists()


# Backup and restore.


@pytest.fixture
def original(tmp_path: Path, village: Path) -> Service:
    """The command line of the inhabited service."""
    shutil.copytree(village, tmp_path / "original" / "data")
    return Service(tmp_path / "original")


@pytest.fixture
def twin(tmp_path: Path, database_url: str) -> Service:
    """The command line of another, new service, on SQLite and on PostgreSQL."""
    other = tmp_path / "twin"
    other.mkdir()
    return Service(other, {"AUTHSVC_DATABASE_URL": database_url.replace(f"{tmp_path}/data", f"{other}/data")})


@pytest.fixture(scope="session")
def backup(village: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A backup of the inhabited service; to be damaged."""
    file = tmp_path_factory.mktemp("backup") / "backup.gz"
    said(Service(village.parent).command("backup", str(file)))
    return file.read_bytes()


def test_a_restored_service_is_the_same_service(original: Service, twin: Service, tmp_path: Path) -> None:
    token = said(original.command("tokens", "create", "alice", "--label", "kept")).strip()
    file = tmp_path / "backup.gz"
    assert said(original.command("backup", str(file))).endswith(f"rows written to {file}\n")
    assert said(twin.command("restore", str(file))).endswith(f"rows restored from {file}\n")
    _client(_data(original))
    (_, version), everything = _version_and_rest()
    alice = Caller(_client(_data(twin), twin.environment["AUTHSVC_DATABASE_URL"]), f"Bearer {token}")
    (_, version_now), everything_now = _version_and_rest()
    assert everything_now == everything
    # It may go on but never back: whoever has seen a version has seen all up to it.
    assert version_now >= version
    assert alice.get("/api/me").get_json()["username"] == "alice"


def _version_and_rest() -> tuple[tuple[int, int], dict[str, Any]]:
    rows = everything_stored()
    (version,) = rows.pop("policy_version")
    return (version[0], version[1]), rows


def test_a_restored_service_goes_on_where_the_first_left_off(backup: bytes, twin: Service, tmp_path: Path) -> None:
    file = tmp_path / "backup.gz"
    file.write_bytes(backup)
    said(twin.command("restore", str(file)))
    client = _client(_data(twin), twin.environment["AUTHSVC_DATABASE_URL"])
    alice = Caller(client).signs_in("alice", ALICES_PASSWORD)
    alice.creates_user("press-7", roles=["line"], permissions=[permission("read a")])
    assert alice.get("/api/audit").get_json()["items"][0]["target"] == "user:press-7"


def test_a_backup_is_for_its_owner_alone_and_never_overwrites(shell: Service, tmp_path: Path) -> None:
    file = tmp_path / "backup.gz"
    said(shell.command("backup", str(file)))
    assert _mode(file) == 0o600
    content = file.read_bytes()
    assert "never overwrites" in complaint(shell.command("backup", str(file)))
    assert file.read_bytes() == content


def test_a_backup_that_cannot_be_written_is_one_line(shell: Service, tmp_path: Path) -> None:
    complaint(shell.command("backup", str(tmp_path / "no" / "such" / "directory" / "backup.gz")))


def test_nothing_is_restored_over_what_is_there(shell: Service, backup: bytes, tmp_path: Path) -> None:
    file = tmp_path / "backup.gz"
    file.write_bytes(backup)
    before = everything_stored()
    assert "not empty" in complaint(shell.command("restore", str(file)))
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
def test_a_damaged_backup_is_refused_whole(console: Console, backup: bytes, tmp_path: Path, damage: Damage) -> None:
    file = tmp_path / "backup.gz"
    file.write_bytes(damage(backup))
    complaint(console.command("restore", str(file)))
    _client(_data(console))
    assert everything_stored()["users"] == []

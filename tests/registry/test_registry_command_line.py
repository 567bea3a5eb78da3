"""`authsvc registry` on the database of a running service."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import requests

from authsvc.storage.database import database
from tests.http.console import Console, error_of, stdout_of
from tests.registry.environment import REGISTER, wait_until
from tests.registry.terminal import AUTHSVC, Running
from tests.service import Service, permission

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Command = Callable[..., str]

_numbers = itertools.count(1)
PASSWORD = "a device's secret"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A running service for this module."""
    with Service(tmp_path_factory.mktemp("service")) as service:
        service.call("POST", "/api/roles", json={"name": "press", "description": "", "permissions": []})
        yield service


@pytest.fixture
def bob(service: Service) -> str:
    """A new username; the registry is unlocked."""
    unlock(service)
    return f"bob-{next(_numbers)}"


def unlock(service: Service) -> None:
    assert service.call("POST", "/api/client-registry/unlock").status_code == 200


@pytest.fixture
def console(service: Service, capsys: pytest.CaptureFixture[str]) -> Iterator[Console]:
    """Runs commands on the database of the running service."""
    yield Console(service.environment, capsys)
    database.initialize(None)


@pytest.fixture
def registry(console: Console) -> Command:
    """Runs `authsvc registry ...` with success and returns its output."""
    return lambda *arguments: stdout_of(console.command("registry", *arguments))


@pytest.fixture
def refusal(console: Console) -> Command:
    """Runs `authsvc registry ...` with an error and returns the message."""
    return lambda *arguments: error_of(console.command("registry", *arguments))


def ask(service: Service, username: str, **body: Any) -> dict[str, Any]:
    """Register over REST and return the answer."""
    answer = requests.post(
        service.url + REGISTER, json={"username": username, "password": PASSWORD, **body}, timeout=20
    )
    assert answer.status_code in (201, 202), answer.text
    found: dict[str, Any] = answer.json()
    return found


def connect(service: Service, username: str, client_id: str = "c1") -> bool:
    """Return whether the broker webhook allows the login."""
    fields = {"username": username, "password": PASSWORD, "clientid": client_id}
    return requests.post(f"{service.broker_url}/auth/user", json=fields, timeout=20).status_code == 200


def user(service: Service, username: str) -> dict[str, Any]:
    found: dict[str, Any] = service.call("GET", f"/api/users/{username}").json()
    return found


def test_registry_is_unlocked_shown_and_locked(registry: Command, service: Service) -> None:
    assert "unlocked for 60 s" in registry("unlock", "--seconds", "60", "--role", "press")
    shown = json.loads(registry("status", "--json"))
    assert shown["locked"] is False
    assert 0 < shown["secondsLeft"] <= 60
    assert service.call("GET", "/api/client-registry").json()["roles"] == ["press"]
    assert registry("lock").startswith("locked")
    assert registry("status").startswith("locked")
    assert "0 of at most 2 granted" in registry("unlock", "--max-registrations", "2")


def test_registration_is_listed_shown_and_granted(registry: Command, service: Service, bob: str) -> None:
    asked = ask(service, bob, context={"hall": 3}, roles=["press"])
    listed = registry("list", "--search", bob)
    assert asked["pairingCode"] in listed
    assert json.loads(registry("list", "--search", bob, "--json"))["items"][0]["id"] == asked["id"]
    shown = json.loads(registry("show", asked["id"]))
    assert (shown["username"], shown["context"], shown["pairingCode"]) == (bob, {"hall": 3}, asked["pairingCode"])
    words = registry("grant", asked["id"], "--permission", "readWrite devices/%u/#", "--accept-requested")
    assert words == f"{bob} granted\n"
    made = user(service, bob)
    assert made["roles"] == ["press"]
    assert [rule["resource"] for rule in made["permissions"]] == ["devices/%u/#"]
    assert wait_until(lambda: connect(service, bob))
    assert bob not in registry("list", "--search", bob)
    assert bob in registry("list", "--search", bob, "--status", "all")


def test_registrations_are_filtered_and_sorted_as_over_rest(registry: Command, service: Service, bob: str) -> None:
    ask(service, bob)
    ask(service, f"{bob}-2")
    for options, query, expected in (
        ("--sort username", "sort=username", [bob, f"{bob}-2"]),
        ("--sort -firstSeen --kind explicit", "sort=-firstSeen&kind=explicit", [f"{bob}-2", bob]),
        ("--kind implicit", "kind=implicit", []),
        ("--before 2026-01-01", "before=2026-01-01T00:00:00Z", []),
        ("--after 2026-01-01 --sort attempts", "after=2026-01-01T00:00:00Z&sort=attempts", None),
    ):
        told = json.loads(registry("list", "--search", bob, "--json", *options.split()))["items"]
        path = f"/api/client-registry/registrations?status=pending&search={bob}&{query}"
        assert [one["id"] for one in told] == [one["id"] for one in service.call("GET", path).json()["items"]]
        assert expected in ([one["username"] for one in told], None)
    for query in ("sort=password", "kind=x", "after=soon"):
        assert service.call("GET", f"/api/client-registry/registrations?{query}").status_code == 400


def test_registration_is_denied_and_deleted(registry: Command, refusal: Command, service: Service, bob: str) -> None:
    asked = ask(service, bob)["id"]
    assert registry("deny", asked, "--reason", "not ours") == f"{bob} denied\n"
    assert json.loads(registry("show", asked))["reason"] == "not ours"
    assert "denied" in refusal("grant", asked)
    assert "deleted" in registry("delete", asked)
    assert ask(service, bob)["id"] != asked


def test_matching_registrations_are_denied_or_deleted(
    registry: Command, refusal: Command, service: Service, bob: str
) -> None:
    for number in range(3):
        ask(service, f"{bob}-{number}")
    assert registry("deny", "--username-pattern", f"{bob}-[01]", "--max-attempts", "1") == "2 denied\n"
    assert registry("delete", "--username-pattern", f"{bob}-*", "--address", "127.0.0.0/8") == "1 deleted\n"
    assert registry("delete", "--username-pattern", f"{bob}-*", "--after", "2999-01-01") == "0 deleted\n"
    assert registry("delete", "--username-pattern", f"{bob}-*", "--status", "denied") == "2 deleted\n"
    assert "either IDs or a filter" in refusal("deny")
    assert "either IDs or a filter" in refusal("delete", "x", "--max-attempts", "1")
    assert "address" in refusal("delete", "--address", "nonsense")


def test_names_are_preauthorized_by_argument_and_file(
    registry: Command, service: Service, bob: str, tmp_path: Path
) -> None:
    file = tmp_path / "presses.csv"
    file.write_text(f"username,roles\n{bob}-a,press\n{bob}-b,\n")
    assert registry("preauthorize", bob, "--role", "press", "--csv", str(file)) == "3 preauthorized\n"
    registry("lock")
    for name, roles in ((bob, ["press"]), (f"{bob}-a", ["press"]), (f"{bob}-b", [])):
        assert ask(service, name)["status"] == "granted"
        assert user(service, name)["roles"] == roles


def test_conflicts_and_http_rights_are_accepted_for_a_single_id(
    registry: Command, refusal: Command, service: Service, bob: str
) -> None:
    asked = ask(service, bob, roles=["admin"])["id"]
    body = {"username": bob, "password": "another secret"}
    assert requests.post(service.url + REGISTER, json=body, timeout=20).status_code == 409
    assert "another password or key" in refusal("grant", asked, "--accept-requested")
    assert "rights over this service" in refusal("grant", asked, "--accept-requested", "--accept-conflicts")
    registry("grant", asked, "--accept-requested", "--accept-conflicts", "--accept-http-rights")
    assert user(service, bob)["roles"] == ["admin"]


def test_several_ids_are_granted_without_http_rights(
    console: Console, registry: Command, service: Service, bob: str
) -> None:
    ids = [ask(service, f"{bob}-{wish}", roles=[wish])["id"] for wish in ("admin", "press")]
    same = ask(service, f"{bob}-same", roles=["press"])["id"]
    assert console.command("registry", "grant", *ids, "--accept-conflicts").returncode == 2
    differing = console.command("registry", "grant", *ids, "--accept-requested")
    assert (differing.returncode, differing.stdout, differing.stderr.count("request different things")) == (1, "", 2)
    assert registry("grant", ids[1], same, "--accept-requested") == f"{bob}-press granted\n{bob}-same granted\n"
    risky = console.command("registry", "grant", *ids, "--role", "admin")
    assert (risky.returncode, risky.stderr.count("rights over this service")) == (1, 1)


def test_requests_and_look_alike_names_are_listed(registry: Command, service: Service, bob: str) -> None:
    service.create_user(bob, "secret")
    name = bob.upper()
    ask(service, name, roles=["press"], permissions=[permission("read plans/%u/\u202e")])
    listed = registry("list", "--search", name)
    assert r"press, read plans/%u/\u202e" in listed
    assert f"looks like {bob}" in listed


def test_names_are_preauthorized_with_secrets(registry: Command, service: Service, bob: str) -> None:
    (name, secret), *rest = [
        line.split(",") for line in registry("preauthorize", bob, f"{bob}-b", "--with-secret").splitlines()
    ]
    assert (name, rest[0][0]) == (bob, f"{bob}-b")
    registry("lock")
    assert ask(service, bob, enrolmentKey=secret)["status"] == "granted"
    body = {"username": f"{bob}-b", "password": PASSWORD}
    assert requests.post(service.url + REGISTER, json=body, timeout=20).status_code == 423


def test_invalid_file_preauthorizes_no_name(registry: Command, refusal: Command, bob: str, tmp_path: Path) -> None:
    file = tmp_path / "presses.csv"
    file.write_text("username\nnot a name\n")
    assert "csv[2]" in refusal("preauthorize", bob, "--csv", str(file))
    assert registry("preauthorize", bob) == "1 preauthorized\n"


def test_key_is_created_used_listed_and_revoked(registry: Command, service: Service, bob: str) -> None:
    made = json.loads(registry("keys", "create", f"hall of {bob}", "--uses", "2", "--role", "press", "--json"))
    registry("lock")
    assert ask(service, bob, enrolmentKey=made["secret"])["status"] == "granted"
    (listed,) = [key for key in json.loads(registry("keys", "list", "--json")) if key["id"] == made["id"]]
    assert (listed["used"], listed["uses"], listed["roles"]) == (1, 2, ["press"])
    assert made["secret"] not in registry("keys", "list")
    assert "revoked" in registry("keys", "revoke", made["id"])
    body = {"username": f"{bob}-b", "password": PASSWORD, "enrolmentKey": made["secret"]}
    assert requests.post(service.url + REGISTER, json=body, timeout=20).status_code == 403


def test_username_or_beginning_of_an_id_names_a_registration(
    registry: Command, refusal: Command, service: Service, bob: str
) -> None:
    first, second = ask(service, bob)["id"], ask(service, f"{bob}-b")["id"]
    assert json.loads(registry("show", bob))["id"] == first
    assert json.loads(registry("show", second[:10]))["id"] == second
    assert registry("grant", bob, second[:10]) == f"{bob} granted\n{bob}-b granted\n"
    third = ask(service, f"{bob}-c")["id"]
    assert registry("deny", f"{bob}-c") == f"{bob}-c denied\n"
    assert registry("delete", f"{bob}-c") == f"{third} deleted\n"
    assert refusal("deny", f"{bob}-c") == "no such registration"


def test_device_cannot_be_granted_by_a_username_that_begins_like_another_id(
    registry: Command, refusal: Command, service: Service, bob: str
) -> None:
    meant = ask(service, bob)["id"]
    ask(service, meant[:12])
    assert "names several registrations" in refusal("grant", meant[:12])
    assert registry("grant", meant[:13]) == f"{bob} granted\n"
    registry("delete", "--username-pattern", meant[:12])


def test_preauthorizations_are_listed_and_deleted(registry: Command, refusal: Command, bob: str) -> None:
    registry("preauthorize", bob, f"{bob}-b", "--role", "press", "--permission", "read plans/#", "--with-secret")
    listed = json.loads(registry("preauthorizations", "list", "--search", bob, "--json"))["items"]
    assert [(each["username"], each["withSecret"]) for each in listed] == [(bob, True), (f"{bob}-b", True)]
    table = registry("preauthorizations", "list", "--search", f"{bob}-b").splitlines()
    assert table[0].split() == ["ID", "USERNAME", "ROLES", "PERMISSIONS", "SECRET", "KEY", "EXPIRES", "HELD"]
    assert table[1].split() == [listed[1]["id"], f"{bob}-b", "press", "read", "plans/#", "yes", "-", "-", "-"]
    deleted = registry("preauthorizations", "delete", bob, listed[1]["id"][:12])
    assert deleted == f"{listed[0]['id']} deleted\n{listed[1]['id']} deleted\n"
    assert refusal("preauthorizations", "delete", bob) == "no such preauthorization"


def test_key_is_deleted_by_its_label(registry: Command, refusal: Command, service: Service, bob: str) -> None:
    made = json.loads(registry("keys", "create", f"hall of {bob}", "--json"))
    assert registry("keys", "delete", f"hall of {bob}") == f"{made['id']} deleted\n"
    assert made["id"] not in registry("keys", "list")
    assert refusal("keys", "revoke", made["id"]) == "no such enrolment key"
    body = {"username": bob, "password": PASSWORD, "enrolmentKey": made["secret"]}
    assert requests.post(service.url + REGISTER, json=body, timeout=20).status_code == 403


def test_file_saved_by_excel_is_read(registry: Command, refusal: Command, bob: str, tmp_path: Path) -> None:
    file = tmp_path / "presses.csv"
    file.write_bytes(f"\ufeffusername;roles\r\n{bob}-a;press\r\n{bob}-b;\r\n".encode())
    assert registry("preauthorize", "--csv", str(file)) == "2 preauthorized\n"
    listed = json.loads(registry("preauthorizations", "list", "--search", bob, "--json"))["items"]
    assert [(each["username"], each["roles"]) for each in listed] == [(f"{bob}-a", ["press"]), (f"{bob}-b", [])]
    file.write_bytes("username;roles\r\npress-\u00fc;\r\n".encode("cp1252"))
    assert "is not UTF-8 text" in refusal("preauthorize", "--csv", str(file))


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "nobody"),
        ("grant", "nobody"),
        ("delete", "nobody"),
        ("unlock", "--role", "nobody"),
        ("preauthorize", "no/name"),
        ("keys", "revoke", "nobody"),
        ("grant", "nobody", "--permission", "fly to/the/moon"),
    ],
    ids=" ".join,
)
def test_errors_are_reported_in_one_line(refusal: Command, arguments: tuple[str, ...]) -> None:
    assert refusal(*arguments)


def test_watch_runs_until_ctrl_c(service: Service, bob: str) -> None:
    with Running(AUTHSVC, "registry", "list", "--watch", environment=service.environment) as watching:
        watching.wait_for("client registry: unlocked")
        assert not connect(service, bob, "press-7")
        watching.wait_for(bob)
        watching.wait_for("press-7")
        watching.interrupt()
        assert watching.wait() == 0
    assert "Traceback" not in watching.printed


def test_hostile_names_do_not_end_the_watch(registry: Command, service: Service, bob: str) -> None:
    assert not connect(service, bob, "[/bold]")
    wait_until(lambda: "[/bold]" in registry("list", "--search", bob))
    with Running(AUTHSVC, "registry", "list", "--watch", "--search", bob, environment=service.environment) as watching:
        watching.wait_for("implicit")
        assert "[/bold]" in watching.printed


def test_hostile_names_do_not_write_control_characters(registry: Command, service: Service, bob: str) -> None:
    assert not connect(service, bob, "\x1b[2J\x1b]0;all is well\x07\x9b31m")
    listed = wait_until(lambda: found if bob in (found := registry("list", "--search", bob)) else "")
    assert not {"\x1b", "\x07", "\x9b"} & set(listed)

"""`compose.yaml` and the image: what they start, what they publish, and that they keep their secrets."""

from __future__ import annotations

import re
import shutil
from typing import Any

import pytest

from authsvc.cli.crl import sync
from tests.deploy.shipped import MOSQUITTO_CONF, ROOT, compose, options, run

SERVICES: dict[str, dict[str, Any]] = compose()["services"]
EVERY_SERVICE = pytest.mark.parametrize("name", list(SERVICES))
BESIDE_THE_BROKER = ("first-lists", "crl-sync")
PINNED = re.compile(r"[a-z0-9./-]+:\d+\.\d+\S*")


def compose_command() -> list[str] | None:
    """Return the Compose that is present: docker's plugin, or the older program of its own."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) and run(*command, "version").returncode == 0:
            return command
    return None


def test_compose_accepts_the_file() -> None:
    command = compose_command()
    if command is None:
        pytest.skip("neither `docker compose` nor `docker-compose` is installed")
    checked = run(*command, "config", "--quiet")
    assert (checked.returncode, checked.stderr) == (0, "")


def test_it_starts_the_broker_the_service_and_the_database_and_keeps_the_brokers_list_fresh() -> None:
    assert set(SERVICES) == {"mosquitto", "authsvc", "postgres", "first-lists", "crl-sync"}


@EVERY_SERVICE
def test_every_image_is_built_here_or_pinned_by_tag(name: str) -> None:
    service = SERVICES[name]
    assert service.get("build") == "." or PINNED.fullmatch(service["image"])


def test_the_dockerfile_builds_on_one_pinned_image() -> None:
    images = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert len(set(images)) == 1
    assert PINNED.fullmatch(images[0])


def test_only_the_brokers_tls_port_is_published_beyond_this_machine() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"mosquitto": ["127.0.0.1:1883:1883", "8883:8883"], "authsvc": ["127.0.0.1:8080:8080"]}


def test_the_broker_cannot_reach_the_database() -> None:
    for name in ("mosquitto", *BESIDE_THE_BROKER):
        assert SERVICES[name]["networks"] == ["broker"]
    assert SERVICES["postgres"]["networks"] == ["database"]
    assert compose()["networks"]["database"]["internal"] is True


def test_nobody_is_asked_before_ready_to_answer() -> None:
    healthy, done, started = (
        {"condition": f"service_{state}"} for state in ("healthy", "completed_successfully", "started")
    )
    assert {name: service.get("depends_on") for name, service in SERVICES.items()} == {
        "mosquitto": {"authsvc": healthy, "first-lists": done},
        "first-lists": {"authsvc": healthy},
        "crl-sync": {"mosquitto": started},
        "authsvc": {"postgres": healthy},
        "postgres": None,
    }
    assert "healthcheck" in SERVICES["postgres"]
    assert "HEALTHCHECK" in (ROOT / "Dockerfile").read_text()


@EVERY_SERVICE
def test_every_service_comes_back_and_has_no_more_rights_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == ("no" if name == "first-lists" else "unless-stopped")
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


@EVERY_SERVICE
def test_every_secret_comes_from_a_file_that_the_service_is_given(name: str) -> None:
    service = SERVICES[name]
    named = {
        variable: value
        for variable, value in service.get("environment", {}).items()
        if re.search("SECRET|PASSWORD|DATABASE_URL", variable)
    }
    assert all(variable.endswith("_FILE") for variable in named)
    given = {f"/run/secrets/{secret}" for secret in service.get("secrets", ())}
    in_its_configuration = {each for each in given if each.startswith("/run/secrets/server.")}
    assert set(named.values()) == given - in_its_configuration


# ---- The broker's certificates and its revocation list ----


def test_the_broker_finds_its_certificate_among_its_secrets() -> None:
    conf = options(MOSQUITTO_CONF.read_text())
    given = {f"/run/secrets/{secret}" for secret in SERVICES["mosquitto"]["secrets"]}
    assert {conf["certfile"], conf["keyfile"]} <= given


@pytest.mark.parametrize("name", BESIDE_THE_BROKER)
def test_what_runs_beside_the_broker_writes_the_files_that_it_reads(name: str) -> None:
    conf, written = options(MOSQUITTO_CONF.read_text()), arguments(name)
    assert (written["--out"], written["--ca-out"]) == (conf["crlfile"], conf["cafile"])
    assert written["--server"] == "http://authsvc:8080"
    for service in (SERVICES[name], SERVICES["mosquitto"]):
        assert "pki:/pki" in service["volumes"]
    assert "secrets" not in SERVICES[name]


def test_the_one_that_goes_on_may_tell_the_broker_to_reload() -> None:
    assert SERVICES["crl-sync"]["pid"] == "service:mosquitto"
    assert arguments("crl-sync")["--pid"] == options(MOSQUITTO_CONF.read_text())["pid_file"]
    assert SERVICES["crl-sync"]["user"] == "1000:1000"
    assert float(arguments("crl-sync")["--interval"]) <= 10


def test_a_new_volume_lets_anybody_write_who_is_given_it() -> None:
    assert "install --directory --mode=1777 /pki" in (ROOT / "Dockerfile").read_text()


def arguments(name: str) -> dict[str, str]:
    """Return the options of `authsvc crl sync` as a service of compose.yaml runs it; the command must take them."""
    group, command, *rest = SERVICES[name]["command"]
    assert (group, command) == ("crl", "sync")
    sync.make_context(command, list(rest))
    return dict(zip(rest[::2], rest[1::2], strict=True))


def test_secrets_are_in_a_directory_that_neither_git_nor_the_image_takes() -> None:
    assert {secret["file"] for secret in compose()["secrets"].values()} == {
        f"./deploy/secrets/{name}" for name in compose()["secrets"]
    }
    assert "/deploy/secrets/" in (ROOT / ".gitignore").read_text().splitlines()
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    assert not any(line.startswith("!deploy") for line in ignored)

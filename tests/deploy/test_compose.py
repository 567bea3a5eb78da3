"""`compose.yaml` and the image: what they start, what they publish, and that they keep their secrets."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from authsvc.cli.crl import sync
from tests.deploy.shipped import MOSQUITTO_CONF, PLUGIN_CONF, ROOT, compose, options, run

if TYPE_CHECKING:
    from pathlib import Path

SERVICES: dict[str, dict[str, Any]] = compose()["services"]
EVERY_SERVICE = pytest.mark.parametrize("name", list(SERVICES))
WITH_PLUGIN = {"mosquitto-plugin", "first-lists-plugin", "crl-sync-plugin"}
BROKERS = {"mosquitto": MOSQUITTO_CONF, "mosquitto-plugin": PLUGIN_CONF}
EVERY_BROKER = pytest.mark.parametrize("broker", BROKERS)
BESIDE = {"first-lists": "mosquitto", "crl-sync": "mosquitto"} | {
    "first-lists-plugin": "mosquitto-plugin",
    "crl-sync-plugin": "mosquitto-plugin",
}
BESIDE_A_BROKER = pytest.mark.parametrize(("name", "broker"), BESIDE.items())
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
    for profile in ((), ("--profile", "plugin")):
        checked = run(*command, *profile, "config", "--quiet")
        assert (checked.returncode, checked.stderr) == (0, "")


def test_go_auth_is_the_default_and_authsvc_own_plugin_a_profile() -> None:
    default = {"mosquitto", "authsvc", "postgres", "first-lists", "crl-sync"}
    assert set(SERVICES) == default | WITH_PLUGIN
    for name in default:
        assert "profiles" not in SERVICES[name]
    for name in WITH_PLUGIN:
        assert SERVICES[name]["profiles"] == ["plugin"]


@EVERY_SERVICE
def test_every_image_is_built_here_or_pinned_by_tag(name: str) -> None:
    service = SERVICES[name]
    if name == "mosquitto-plugin":
        assert service["build"] == {"context": ".", "target": "mosquitto"}
    else:
        assert service.get("build") == "." or PINNED.fullmatch(service["image"])


def test_the_dockerfile_builds_on_two_pinned_images() -> None:
    images = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert {image.partition(":")[0] for image in images} == {"debian", "python"}
    assert len(set(images)) == 2
    assert all(PINNED.fullmatch(image) for image in images)


def test_only_brokers_are_published_and_the_api_to_this_machine() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {
        "mosquitto": ["1883:1883", "8883:8883"],
        "mosquitto-plugin": ["${PLUGIN_PORT:-1884}:1883", "${PLUGIN_TLS_PORT:-8884}:8883"],
        "authsvc": ["127.0.0.1:8080:8080"],
    }


def test_brokers_cannot_reach_the_database() -> None:
    for name in (*BROKERS, *BESIDE):
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
        "mosquitto-plugin": {"authsvc": healthy, "first-lists-plugin": done},
        "first-lists-plugin": {"authsvc": healthy},
        "crl-sync-plugin": {"mosquitto-plugin": started},
        "authsvc": {"postgres": healthy},
        "postgres": None,
    }
    assert "healthcheck" in SERVICES["postgres"]
    assert "HEALTHCHECK" in (ROOT / "Dockerfile").read_text()


@EVERY_SERVICE
def test_every_service_comes_back_and_has_no_more_rights_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == ("no" if name.startswith("first-lists") else "unless-stopped")
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
    in_its_configuration = {each for each in given if name in BROKERS and f" {each}\n" in BROKERS[name].read_text()}
    assert set(named.values()) == given - in_its_configuration


# ---- The broker's certificates and its revocation list ----


@EVERY_BROKER
def test_a_broker_finds_its_certificate_among_its_secrets(broker: str) -> None:
    conf = options(BROKERS[broker].read_text())
    given = {f"/run/secrets/{secret}" for secret in SERVICES[broker]["secrets"]}
    assert {conf["certfile"], conf["keyfile"]} <= given


@EVERY_BROKER
def test_a_broker_is_started_with_a_configuration_that_it_is_given(broker: str) -> None:
    assert "./deploy/mosquitto:/etc/mosquitto:ro" in SERVICES[broker]["volumes"]
    given: dict[str, Path] = {f"/etc/mosquitto/{path.name}": path for path in MOSQUITTO_CONF.parent.iterdir()}
    assert given[SERVICES[broker]["command"][-1]].is_file()


@BESIDE_A_BROKER
def test_files_of_a_broker_are_written_where_it_reads_them(name: str, broker: str) -> None:
    conf, written = options(BROKERS[broker].read_text()), arguments(name)
    assert (written["--out"], written["--ca-out"]) == (conf["crlfile"], conf["cafile"])
    assert written["--server"] == "http://authsvc:8080"
    (volume,) = SERVICES[name]["volumes"]
    assert volume in SERVICES[broker]["volumes"]
    assert "secrets" not in SERVICES[name]


def test_brokers_share_no_volume() -> None:
    go_auth, own = ({volume for volume in SERVICES[broker]["volumes"] if volume[0] != "."} for broker in BROKERS)
    assert len(go_auth) == len(own) == 2
    assert not go_auth & own


@EVERY_BROKER
def test_the_list_is_kept_fresh_by_a_container_that_may_signal_the_broker(broker: str) -> None:
    name = broker.replace("mosquitto", "crl-sync")
    assert SERVICES[name]["pid"] == f"service:{broker}"
    assert arguments(name)["--pid"] == options(BROKERS[broker].read_text())["pid_file"]
    assert SERVICES[name]["user"] == "1000:1000"
    assert float(arguments(name)["--interval"]) <= 10


def test_the_image_with_the_plugin_runs_under_the_user_id_that_sends_signals() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert "useradd --uid 1000 --gid mosquitto" in dockerfile
    assert SERVICES["mosquitto-plugin"]["user"] == "1000:1000"
    assert options(PLUGIN_CONF.read_text())["plugin"] in dockerfile


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
    assert [line for line in ignored if line.startswith("!deploy")] == ["!deploy/mosquitto/plugin"]

"""The shipped configurations: the recommended settings, and a real Mosquitto that runs with them.

Only what differs between a container and this machine is replaced: addresses, directories, and go-auth itself
by the plugin of the tests, which takes the same options.
"""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.broker import Mosquitto, build_authsvc_plugin, build_plugin, free_port
from tests.deploy.shipped import MOSQUITTO_CONF, PLUGIN_CONF, ROOT, lines, options, rendered_conf
from tests.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WEBHOOK_SECRET = "the.right_secret~1"
RECOMMENDED = {
    "allow_anonymous": "false",
    "auth_opt_backends": "http",
    "auth_opt_http_getuser_uri": "/auth/user",
    "auth_opt_http_aclcheck_uri": "/auth/acl",
    "auth_opt_http_params_mode": "json",
    "auth_opt_http_response_mode": "json",
    "auth_opt_http_timeout": "2",
    "auth_opt_retry_count": "1",
    "auth_opt_cache": "false",
    "auth_opt_disable_superuser": "true",
    "auth_opt_log_level": "warn",
    "check_retain_source": "true",
}


@pytest.mark.parametrize(("option", "value"), RECOMMENDED.items())
def test_it_follows_the_recommendation(option: str, value: str) -> None:
    assert options(MOSQUITTO_CONF.read_text())[option] == value


def test_it_asks_nobody_about_superusers() -> None:
    assert "auth_opt_http_superuser_uri" not in options(MOSQUITTO_CONF.read_text())


@pytest.mark.parametrize("conf", [MOSQUITTO_CONF, PLUGIN_CONF], ids=lambda conf: conf.name)
def test_no_option_but_the_listeners_is_named_twice(conf: Path) -> None:
    names = [line.split(" ", 1)[0] for line in lines(conf.read_text())]
    assert {name: names.count(name) for name in names if names.count(name) > 1} == {"listener": 2}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that knows two presses, which may write their own topics, and an observer, who may read everything.

    One press and the observer log in with a password, the other press with a certificate.
    """
    environment = {"AUTHSVC_WEBHOOK_SECRET": WEBHOOK_SECRET}
    with Service(tmp_path_factory.mktemp("service"), environment) as service:
        service.create_user("press-7", "secret", "write devices/%u/#")
        service.create_user("observer", "secret", "read #")
        service.create_user("press-8", "secret", "write devices/%u/#", grantTypes=["certificate"])
        yield service


@pytest.fixture(params=[pytest.param("go-auth", marks=pytest.mark.slow), "authsvc"])
def broker(service: Service, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Mosquitto]:
    """A broker with a shipped configuration and the right secret."""
    with Mosquitto(conf_for_this_machine(request.param, WEBHOOK_SECRET, service, tmp_path), tmp_path) as broker:
        yield broker


def conf_for_this_machine(plugin: str, webhook_secret: str, service: Service, directory: Path) -> str:
    fetch_pki(service, directory)
    if plugin == "go-auth":
        conf = rendered_conf(webhook_secret)
        of_the_plugin = {
            "/mosquitto/go-auth.so\n": f"{build_plugin()}\n",
            "@authsvc\n": "@127.0.0.1\n",
            "http_port 8070\n": f"http_port {service.broker_port}\n",
        }
    else:
        conf = PLUGIN_CONF.read_text()
        (directory / "webhook_secret").write_text(webhook_secret)
        of_the_plugin = {
            "/usr/lib/mosquitto_authsvc.so\n": f"{build_authsvc_plugin()}\n",
            "http://authsvc:8070\n": f"{service.broker_url}\n",
            "/run/secrets/webhook_secret\n": f"{directory}/webhook_secret\n",
        }
    for shipped, here in of_the_plugin.items() | {
        ("listener 1883\n", f"listener {free_port()} 127.0.0.1\n"),
        ("listener 8883\n", f"listener {free_port()} 127.0.0.1\n"),
        ("/run/secrets/server.crt\n", f"{directory}/secrets/server.crt\n"),
        ("/run/secrets/server.key\n", f"{directory}/secrets/server.key\n"),
        ("/pki/ca.pem\n", f"{directory}/ca.pem\n"),
        ("/pki/crl.pem\n", f"{directory}/crl.pem\n"),
        ("/pki/mosquitto.pid\n", f"{directory}/mosquitto.pid\n"),
        ("/var/lib/mosquitto/\n", f"{directory}/\n"),
    }:
        assert conf.count(shipped) == 1, shipped
        conf = conf.replace(shipped, here)
    return conf


def fetch_pki(service: Service, directory: Path) -> None:
    """Bring what `make secrets` makes, and what the service gives to brokers."""
    if not (directory / "secrets").exists():
        script = shutil.copy(ROOT / "deploy/make-secrets.sh", directory)
        subprocess.run([script], check=True, capture_output=True)
    for name in ("ca.pem", "crl.pem"):
        (directory / name).write_bytes(service.call("GET", f"/pki/{name}").content)


def publish(broker: Mosquitto, username: str, topic: str, payload: str) -> str:
    """Publish a retained message; return the broker's complaint, or nothing if it was taken."""
    message = ("-V", "mqttv5", "-q", "1", "-r", "-t", topic, "-m", payload)
    return client("mosquitto_pub", broker, username, *message).stderr


def receive(broker: Mosquitto, username: str, topic_filter: str) -> str:
    """Return the first message of a subscription, or nothing when none comes."""
    return client("mosquitto_sub", broker, username, "-t", topic_filter, "-C", "1", "-W", "2").stdout


def client(program: str, broker: Mosquitto, username: str, *rest: str) -> subprocess.CompletedProcess[str]:
    command = [program, "-h", "127.0.0.1", "-p", str(broker.port), "-u", username, "-P", "secret", *rest]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)


def test_a_device_publishes_where_it_may_and_an_observer_receives_it(broker: Mosquitto) -> None:
    assert publish(broker, "press-7", "devices/press-7/state", "running") == ""
    assert receive(broker, "observer", "devices/#") == "running\n"


def test_a_device_is_refused_elsewhere(broker: Mosquitto) -> None:
    assert "Not authorized" in publish(broker, "press-7", "devices/press-8/state", "running")
    assert receive(broker, "observer", "devices/press-8/#") == ""


def test_a_device_may_not_read_what_it_may_write(broker: Mosquitto) -> None:
    assert publish(broker, "press-7", "devices/press-7/state", "running") == ""
    assert receive(broker, "press-7", "devices/press-7/state") == ""


def test_an_unknown_user_does_not_get_in(broker: Mosquitto) -> None:
    assert "Not authorized" in publish(broker, "nobody", "devices/nobody/state", "running")


def test_a_retained_message_goes_no_further_when_its_publisher_has_lost_the_permission(
    service: Service, broker: Mosquitto
) -> None:
    service.create_user("press-9", "secret", "write devices/%u/#")
    assert publish(broker, "press-9", "devices/press-9/state", "running") == ""
    assert receive(broker, "observer", "devices/press-9/#") == "running\n"
    service.call("PATCH", "/api/users/press-9", json={"permissions": []})
    broker.wait_until(lambda: receive(broker, "observer", "devices/press-9/#") == "", "hold the message back")
    service.call("DELETE", "/api/users/press-9")


def test_a_device_with_a_certificate_publishes_where_it_may(
    service: Service, broker: Mosquitto, tmp_path: Path
) -> None:
    service.command("certificates", "issue", "press-8", "--out", str(tmp_path))
    _, port = broker.ports
    papers = ("--cafile", "secrets/server.crt", "--cert", "press-8.crt", "--key", "press-8.key")
    command = ("mosquitto_pub", "-h", "localhost", "-p", str(port), *papers, "-V", "mqttv5", "-q", "1", "-r")

    def complaint(topic: str) -> str:
        message = ("-t", topic, "-m", "by certificate")
        return subprocess.run(
            [*command, *message], cwd=tmp_path, capture_output=True, text=True, timeout=20, check=False
        ).stderr

    # Another process has issued the certificate: the service knows it within its poll interval.
    broker.wait_until(lambda: not complaint("devices/press-8/state"), "accept the certificate")
    assert "Not authorized" in complaint("devices/press-7/state")
    assert receive(broker, "observer", "devices/press-8/#") == "by certificate\n"


def test_retained_messages_outlive_a_restart_of_the_broker(broker: Mosquitto) -> None:
    assert publish(broker, "press-7", "devices/press-7/state", "running") == ""
    broker.stop()
    broker.start()
    assert receive(broker, "observer", "devices/press-7/#") == "running\n"


@pytest.mark.parametrize("plugin", [pytest.param("go-auth", marks=pytest.mark.slow), "authsvc"])
def test_with_the_wrong_webhook_secret_nobody_gets_in(service: Service, tmp_path: Path, plugin: str) -> None:
    with Mosquitto(conf_for_this_machine(plugin, "another.secret", service, tmp_path), tmp_path) as broker:
        assert "Not authorized" in publish(broker, "press-7", "devices/press-7/state", "running")


def test_neither_log_shows_the_secret(service: Service, broker: Mosquitto) -> None:
    assert publish(broker, "press-7", "devices/press-7/state", "running") == ""
    assert WEBHOOK_SECRET not in broker.log_text() + service.log_text()

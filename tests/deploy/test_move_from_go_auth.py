"""A Mosquitto with go-auth is moved to authsvc's plugin by replacing its lines, as the guide says."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.broker import BrokerError, Mosquitto, build_authsvc_plugin, build_plugin, free_port
from tests.deploy.shipped import GUIDE, ROOT, lines
from tests.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

SECRET = "the.right_secret~1"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service with a webhook secret and a press that may use its own topics."""
    with Service(tmp_path, {"AUTHSVC_WEBHOOK_SECRET": SECRET}) as service:
        service.create_user("press-7", "secret", "readWrite devices/%u/#")
        yield service


def lines_of_the_guide(some: str) -> str:
    """Return the block of lines for `mosquitto.conf` that contains this text."""
    blocks = re.findall(r"   ```(?:sh)?\n(.*?)   ```\n", GUIDE.read_text(), re.DOTALL)
    (found,) = (block for block in blocks if some in block)
    return "".join(f"{line.strip()}\n" for line in found.splitlines())


def run(program: str, broker: Mosquitto, *arguments: str) -> str:
    """Run an MQTT client as the press; return its output and errors."""
    command = [program, "-h", "127.0.0.1", "-p", str(broker.port), "-u", "press-7", "-P", "secret", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return done.stdout + done.stderr


def test_users_and_sessions_continue_after_the_lines_are_replaced(service: Service, tmp_path: Path) -> None:
    kept = f"listener {free_port()} 127.0.0.1\npersistence true\npersistence_location {tmp_path}/\n"
    go_auth = lines_of_the_guide("auth_plugin ") + lines_of_the_guide("auth_opt_retry_count ")
    for shipped, here in (
        ("/mosquitto/go-auth.so", str(build_plugin())),
        ("YOUR_WEBHOOK_SECRET", SECRET),
        ("http_port 8070", f"http_port {service.broker_port}"),
    ):
        go_auth = go_auth.replace(shipped, here)
    subscription = ("-i", "display", "-c", "-q", "1", "-t", "devices/press-7/#")
    with Mosquitto(kept + go_auth, tmp_path) as broker:
        broker.wait_until(lambda: run("mosquitto_sub", broker, *subscription, "-E") == "", "let the press in")
        assert run("mosquitto_pub", broker, "-q", "1", "-t", "devices/press-7/state", "-m", "queued") == ""

    own = lines_of_the_guide("plugin_opt_url ")
    (tmp_path / "webhook_secret").write_text(SECRET)
    for shipped, here in (
        ("/usr/lib/mosquitto_authsvc.so", str(build_authsvc_plugin())),
        ("http://127.0.0.1:8070", service.broker_url),
        ("/etc/mosquitto/webhook_secret", f"{tmp_path}/webhook_secret"),
    ):
        own = own.replace(shipped, here)
    with Mosquitto(kept + own, tmp_path) as broker:
        broker.wait_for_log("authsvc: connected to")
        assert run("mosquitto_sub", broker, *subscription, "-C", "1") == "queued\n"
        denied = run("mosquitto_pub", broker, "-V", "mqttv5", "-q", "1", "-t", "devices/press-8/state", "-m", "x")
        assert "Not authorized" in denied


def test_a_forgotten_line_of_go_auth_is_refused_by_name(tmp_path: Path) -> None:
    config = f"listener {free_port()} 127.0.0.1\nplugin {build_authsvc_plugin()}\nplugin_opt_url http://127.0.0.1:1\n"
    broker = Mosquitto(f"{config}auth_opt_backends http\n", tmp_path)
    with pytest.raises(BrokerError, match="plugin_opt_backends is not known"):
        broker.start()


def test_configuration_of_make_broker_lets_a_user_in(tmp_path: Path) -> None:
    shipped = (ROOT / "deploy/mosquitto/try.conf").read_text()
    assert f"plugin deploy/mosquitto/plugin/{build_name()}" in lines(shipped)
    with Service(tmp_path) as service:
        service.create_user("press-7", "secret", "readWrite devices/%u/#")
        config = shipped.replace("listener 1883", f"listener {free_port()}").replace("log_dest stderr\n", "")
        config = config.replace("http://127.0.0.1:8070", service.broker_url)
        config = config.replace(f"deploy/mosquitto/plugin/{build_name()}", str(build_authsvc_plugin()))
        with Mosquitto(config, tmp_path) as broker:
            broker.wait_until(
                lambda: run("mosquitto_pub", broker, "-t", "devices/press-7/x", "-m", "x") == "", "let in"
            )


def build_name() -> str:
    """Return the file name of the plugin that `make plugin` builds."""
    makefile = (ROOT / "deploy/mosquitto/plugin/Makefile").read_text()
    name: str = re.findall(r"^PLUGIN = (\S+)$", makefile, re.MULTILINE)[0]
    return name

"""The lines of mosquitto.conf, and what the broker says about wrong ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.broker import BrokerError, Mosquitto, free_port
from tests.plugin.fake_service import FakeService, wait_for
from tests.plugin.in_broker.pki import Authority
from tests.plugin.in_broker.site import Site

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.plugin.in_broker.build import Build

pytestmark = pytest.mark.slow

SECRET = "correct-horse-battery-staple"
URL = "plugin_opt_url http://127.0.0.1:1"
WRONG = {
    "unknown": (f"{URL}\nplugin_opt_host x", "plugin_opt_host is not known; there are url,"),
    "no-url": ("", "plugin_opt_url is missing"),
    "no-scheme": ("plugin_opt_url 127.0.0.1:8070", "plugin_opt_url must begin with http:// or https://"),
    "other-scheme": ("plugin_opt_url ftp://127.0.0.1", "plugin_opt_url must begin with http:// or https://"),
    "no-host": ("plugin_opt_url http://", "plugin_opt_url names no host"),
    "no-host-but-path": ("plugin_opt_url http:///x", "plugin_opt_url names no host"),
    "query": ("plugin_opt_url http://a/?key=x", "plugin_opt_url must not contain ?"),
    "password": (f"plugin_opt_url http://broker:{SECRET}@a", "plugin_opt_url must not contain a password"),
    "no-secret-file": (f"{URL}\nplugin_opt_secret_file {{dir}}/absent", "plugin_opt_secret_file cannot be read"),
    "empty-secret": (f"{URL}\nplugin_opt_secret_file /dev/null", "plugin_opt_secret_file names an empty file"),
    "directory": (f"{URL}\nplugin_opt_secret_file {{dir}}", "plugin_opt_secret_file"),
    "long-secret": (f"{URL}\nplugin_opt_secret_file {{dir}}/long", "plugin_opt_secret_file names a file of more than"),
    "no-ca-file": (f"{URL}\nplugin_opt_ca_file {{dir}}/absent", "plugin_opt_ca_file cannot be read"),
    "negative": (f"{URL}\nplugin_opt_offline_seconds -1", "plugin_opt_offline_seconds must be a number"),
    "too-many": (f"{URL}\nplugin_opt_offline_seconds 604801", "plugin_opt_offline_seconds must be a number"),
    "no-number": (f"{URL}\nplugin_opt_offline_seconds 5m", "plugin_opt_offline_seconds must be a number"),
    "long-name": (f"{URL}\nplugin_opt_name {'n' * 65}", "plugin_opt_name must have 1 to 64"),
    "twice": (f"{URL}\nplugin PLUGIN\n{URL}", "the plugin is configured twice"),
}


@pytest.mark.parametrize("case", WRONG)
def test_broker_does_not_start_with_a_wrong_option(plugin_build: Build, tmp_path: Path, case: str) -> None:
    lines, says = WRONG[case]
    (tmp_path / "long").write_text("x" * 5000)
    config = f"listener {free_port()} 127.0.0.1\nplugin PLUGIN\n{lines}\n"
    config = config.replace("PLUGIN", str(plugin_build.plugin)).replace("{dir}", str(tmp_path))
    broker = Mosquitto(config, tmp_path, plugin_build.environment)
    with pytest.raises(BrokerError, match="did not start"), broker:
        pass
    assert f"authsvc: {says}" in broker.log_text()
    assert SECRET not in broker.log_text()
    assert "Sanitizer" not in broker.log_text()


def test_broker_does_not_start_with_settings_per_listener(plugin_build: Build, tmp_path: Path) -> None:
    config = f"per_listener_settings true\nlistener {free_port()} 127.0.0.1\nplugin {plugin_build.plugin}\n{URL}\n"
    broker = Mosquitto(config, tmp_path, plugin_build.environment)
    with pytest.raises(BrokerError, match="did not start"), broker:
        pass
    assert "authsvc: per_listener_settings true is not supported" in broker.log_text()


def test_settings_per_listener_in_an_included_file_let_nobody_in(plugin_build: Build, tmp_path: Path) -> None:
    included = tmp_path / "conf.d"
    included.mkdir()
    (included / "first.conf").write_text("per_listener_settings true\n")
    with FakeService() as service:
        config = f"include_dir {included}\nlistener {free_port()} 127.0.0.1\nplugin {plugin_build.plugin}\n"
        config += f"plugin_opt_url http://127.0.0.1:{service.server_port}\n"
        site = Site(plugin_build, tmp_path, service=service)
        site.service = service
        site.broker = Mosquitto(config, tmp_path, plugin_build.environment)
        with site.broker:
            assert site.code(site.user()) == 5
            site.broker.wait_for_log("authsvc: per_listener_settings true is not supported")


def test_secret_is_sent_and_never_logged(new_site: Callable[..., Site], tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    with FakeService(secret=SECRET) as service:
        site = new_site(f"secret_file {tmp_path}/secret", service=service)
        site.wait_until_up()
        assert site.code(site.user()) == 0
        assert SECRET not in site.broker.log_text()


@pytest.mark.parametrize("given", [None, "another"])
def test_wrong_secret_lets_nobody_in_and_says_so_once(
    new_site: Callable[..., Site], tmp_path: Path, given: str | None
) -> None:
    (tmp_path / "secret").write_text(f"{given}\n")
    with FakeService(secret=SECRET) as service:
        options = [f"secret_file {tmp_path}/secret"] if given else []
        site = new_site(*options, service=service)
        site.broker.wait_for_log("the webhook secret is wrong")
        assert site.code(site.user()) == 5
        wait_for(lambda: len(service.asked("/auth/plugin/changes")) > 2)
        assert site.broker.log_text().count("the webhook secret is wrong") == 1
        assert "another" not in site.broker.log_text()


def test_service_is_reached_over_https_if_its_authority_is_named(new_site: Callable[..., Site], tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with FakeService(tls=authority.server_tls()) as service:
        url = f"url https://127.0.0.1:{service.server_port}"
        site = new_site(url, f"ca_file {authority.ca_file}", service=service)
        site.wait_until_up()
        assert site.connected(site.user("write a")).publish("a") == 0


def test_service_with_a_certificate_of_another_authority_is_not_believed(
    new_site: Callable[..., Site], tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    with FakeService(tls=authority.server_tls()) as service:
        site = new_site(f"url https://127.0.0.1:{service.server_port}", service=service)
        site.wait_until_down()
        assert site.code(site.user()) == 5
        assert "certificate" in site.broker.log_text()

"""The broker ends in time, whatever the plugin waits for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.plugin.fake_service import wait_for
from tests.plugin.in_broker.raw_mqtt import connect_packet

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.plugin.in_broker.site import Site

pytestmark = pytest.mark.slow

IN_TIME = 3.0  # seconds


def stops_in_time(site: Site) -> None:
    began = time.monotonic()
    site.broker.stop()
    assert time.monotonic() - began < IN_TIME
    assert " terminating\n" in site.broker.log_text()


def test_broker_ends_while_a_login_is_in_flight(new_site: Callable[..., Site]) -> None:
    site = new_site()
    site.wait_until_up()
    site.service.resumed.clear()
    user = site.user()
    site.raw().send(connect_packet("c", user.encode(), b"secret"))
    wait_for(lambda: site.logins_asked(user))
    stops_in_time(site)


def test_broker_ends_while_the_stream_hangs(new_site: Callable[..., Site]) -> None:
    site = new_site()
    site.wait_until_up()
    site.service.resumed.clear()
    stops_in_time(site)


def test_broker_ends_while_the_service_does_not_answer_the_first_request(new_site: Callable[..., Site]) -> None:
    site = new_site()
    site.wait_until_up()
    site.broker.stop()
    site.service.resumed.clear()
    streams = len(site.service.asked("/auth/plugin/changes"))
    site.broker.start()
    wait_for(lambda: len(site.service.asked("/auth/plugin/changes")) > streams)
    stops_in_time(site)


def test_broker_ends_while_users_are_fetched_and_a_report_is_sent(new_site: Callable[..., Site]) -> None:
    site = new_site()
    site.wait_until_up()
    device = site.connected(site.user())
    site.service.raw["/auth/plugin/users"] = lambda _: time.sleep(20)
    site.service.replace(device.username, rules=["write a"])
    wait_for(lambda: site.fetches(device.username))
    device.publish("denied")
    stops_in_time(site)


def test_broker_ends_with_100_clients_and_their_wills(new_site: Callable[..., Site]) -> None:
    site = new_site()
    site.wait_until_up()
    for _ in range(80):
        assert site.raw().login(site.new_name("client"), site.user("readWrite a").encode()) == 0
    for _ in range(20):
        site.connected(site.user("readWrite a"), persistent=True, will=("a", "gone")).subscribe("a")
    stops_in_time(site)

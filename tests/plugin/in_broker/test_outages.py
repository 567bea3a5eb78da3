"""The service is away, hangs, comes back, or was never there."""

from __future__ import annotations

import itertools
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.broker import free_port
from tests.devices import NOT_AUTHORIZED
from tests.plugin.fake_service import FakeService, wait_for
from tests.plugin.in_broker.site import seconds_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.plugin.in_broker.site import Site

pytestmark = pytest.mark.slow

AT_ONCE = 0.5  # seconds; a wait for the service would take longer
LONGEST_WAIT = 2.5  # for one answer
IN_FORCE_AGAIN = 2.0


class Outages:
    """A site whose service can be taken away and put back on the same port."""

    def __init__(self, new_site: Callable[..., Site], running: ExitStack) -> None:
        self._running = running
        self._current = ExitStack()
        running.callback(self._current.close)
        self.service = self._current.enter_context(FakeService())
        self._new_site = new_site

    def start(self, *options: str) -> Site:
        self.site = self._new_site(*options, service=self.service)
        self.site.wait_until_up()
        return self.site

    def stop_service(self) -> None:
        self._current.close()
        self.site.wait_until_down()

    def start_service(self) -> FakeService:
        """Start a new service with the same users on the same port."""
        before = self.service
        self.service = FakeService(before.server_port)
        self.service.users, self.service.version = before.users, before.version
        self.site.service = self._current.enter_context(self.service)
        return self.service


@pytest.fixture
def outages(new_site: Callable[..., Site]) -> Iterator[Outages]:
    with ExitStack() as running:
        yield Outages(new_site, running)


def test_known_clients_go_on_and_come_back_while_the_service_is_away(outages: Outages) -> None:
    site = outages.start()
    writer = site.connected(site.user("write a", "deny write b"))
    reader = site.connected(site.user("read a"))
    reader.subscribe("a")
    outages.stop_service()
    assert writer.publish("a", "x") == 0
    assert writer.publish("b") == NOT_AUTHORIZED
    assert reader.received() == ("a", b"x")
    writer.stop()
    back = site.connected(writer.username)
    assert back.publish("a", "y") == 0
    assert reader.received() == ("a", b"y")
    assert site.code(writer.username, "wrong") != 0
    outages.start_service()
    wait_for(lambda: site.service.reports)
    wait_for(lambda: {"username": writer.username, "clientid": back.client_id} in site.reported("logins"))
    wait_for(lambda: [denial["topic"] for denial in site.denials(writer.username)] == ["b"])
    assert back.stayed_connected()


def test_unknown_login_is_refused_at_once_while_the_service_is_away(outages: Outages) -> None:
    site = outages.start()
    outages.stop_service()
    for _ in range(3):
        began = time.monotonic()
        assert site.code("somebody-else") == 5
        assert time.monotonic() - began < AT_ONCE


def test_only_the_first_login_waits_for_a_service_that_hangs(outages: Outages) -> None:
    site = outages.start()
    device = site.connected(site.user("write a"))
    site.service.resumed.clear()
    began = time.monotonic()
    assert site.code("somebody-else") == 5
    assert time.monotonic() - began < LONGEST_WAIT
    for _ in range(5):
        began = time.monotonic()
        assert site.code("somebody-else") == 5
        assert site.code(device.username) == 0
        assert device.publish("a") == 0
        assert time.monotonic() - began < AT_ONCE
    site.service.resumed.set()
    other = site.user()
    wait_for(lambda: site.code(other) == 0)


def test_logins_that_are_never_answered_cost_ever_less_while_the_stream_goes_on(outages: Outages) -> None:
    site = outages.start()
    site.service.raw["/auth/user"] = lambda _: time.sleep(20)
    waits = 0
    end = time.monotonic() + 7
    while time.monotonic() < end:
        began = time.monotonic()
        assert site.code("somebody-else") == 5
        waits += time.monotonic() - began > 1
    assert waits <= 3  # at 0, 3 and 7 s, not each time


def test_everything_is_denied_after_offline_seconds(outages: Outages) -> None:
    site = outages.start("offline_seconds 1")
    device = site.connected(site.user("readWrite a"))
    device.subscribe("a")
    outages.stop_service()
    wait_for(lambda: device.publish("a") == NOT_AUTHORIZED)
    assert device.subscribe("a") == [NOT_AUTHORIZED]
    assert site.code(device.username) == 5
    outages.start_service()
    assert seconds_until(lambda: device.publish("a") == 0) < IN_FORCE_AGAIN
    assert device.stayed_connected()


def test_offline_seconds_0_denies_as_soon_as_the_service_is_away(outages: Outages) -> None:
    site = outages.start("offline_seconds 0")
    device = site.connected(site.user("readWrite a"))
    assert device.publish("a") == 0
    outages.stop_service()
    assert device.publish("a") == NOT_AUTHORIZED


def test_changes_made_while_the_service_was_away_are_in_force_within_two_seconds(outages: Outages) -> None:
    site = outages.start()
    changed = site.connected(site.user("write a"))
    disabled = site.connected(site.user("write a"))
    same = site.connected(site.user("write a"))
    outages.stop_service()
    site.service.users[changed.username].rules = ["write b"]
    site.service.users[disabled.username].refused = "user-disabled"
    site.service.version += 2
    outages.start_service()
    began = time.monotonic()
    wait_for(lambda: changed.publish("b") == 0)
    assert disabled.is_disconnected()
    assert time.monotonic() - began < IN_FORCE_AGAIN
    assert changed.publish("a") == NOT_AUTHORIZED
    assert same.stayed_connected()


def test_changes_made_while_the_service_hung_are_in_force_within_two_seconds(outages: Outages) -> None:
    site = outages.start()
    device = site.connected(site.user("write a"))
    site.service.resumed.clear()
    site.wait_until_down()
    site.service.replace(device.username, rules=["write b"])
    site.service.resumed.set()
    assert seconds_until(lambda: device.publish("b") == 0) < IN_FORCE_AGAIN


def test_request_without_an_answer_does_not_delay_a_change_after_a_new_stream(outages: Outages) -> None:
    """As when a network loses packets: what was asked is never answered, while a new connection works."""
    site = outages.start()
    device = site.connected(site.user("write a"))
    answered = itertools.count()
    site.service.raw["/auth/plugin/users"] = lambda _: time.sleep(20 if next(answered) == 0 else 0)
    site.service.replace(device.username, rules=["write b"])
    wait_for(lambda: site.fetches(device.username))
    site.service.raw.clear()
    site.service.end_streams()
    assert seconds_until(lambda: device.publish("b") == 0) < IN_FORCE_AGAIN


def test_stream_that_ends_is_begun_again_without_refusing_anybody(outages: Outages) -> None:
    site = outages.start()
    device = site.connected(site.user("write a"))

    def nobody_is_refused_until_there_is_another() -> bool:
        assert device.publish("a") == 0
        assert site.code(site.user()) == 0
        return len(site.service.asked("/auth/plugin/changes")) > streams

    for _ in range(3):
        wait_for(lambda: site.service.streams)
        streams = len(site.service.asked("/auth/plugin/changes"))
        site.service.end_streams()
        wait_for(nobody_is_refused_until_there_is_another)
    assert "does not answer" not in site.broker.log_text()
    wait_for(lambda: site.service.streams)
    site.service.replace(device.username, rules=[])
    wait_for(lambda: device.publish("a") == NOT_AUTHORIZED)


def test_stream_that_always_ends_is_not_begun_without_a_pause(outages: Outages) -> None:
    site = outages.start()
    site.service.answer_json("/auth/plugin/changes", {"protocol": 1, "version": 1, "service": "test"})
    site.service.answers["/auth/plugin/changes"] += b"\n"
    site.service.end_streams()
    before = len(site.service.asked("/auth/plugin/changes"))
    began = time.monotonic()
    wait_for(lambda: len(site.service.asked("/auth/plugin/changes")) >= before + 3)
    assert time.monotonic() - began > 1
    assert site.code(site.user()) == 0


def test_service_that_starts_after_the_broker_is_found(new_site: Callable[..., Site]) -> None:
    port = free_port()
    site = new_site(f"url http://127.0.0.1:{port}/")
    user = site.user("write a")
    assert site.code(user) == 5
    site.wait_until_down()
    with FakeService(port) as later:
        later.users = site.service.users
        wait_for(lambda: site.code(user) == 0)
        assert site.connected(user).publish("a") == 0
        wait_for(lambda: later.reports)


def test_service_that_hangs_when_the_broker_starts_stalls_it_once(new_site: Callable[..., Site]) -> None:
    service = FakeService()
    service.resumed.clear()
    with service:
        site = new_site(service=service)
        user = site.user("write a")
        began = time.monotonic()
        assert [site.code(user) for _ in range(5)] == [5] * 5
        assert time.monotonic() - began < LONGEST_WAIT + AT_ONCE
        service.resumed.set()
        wait_for(lambda: site.code(user) == 0)


def test_service_that_has_no_policy_yet_counts_as_away(outages: Outages) -> None:
    """A process that has not loaded its policy says version 0, and nothing about its users counts."""
    site = outages.start()
    device = site.connected(site.user("write a"))
    version, site.service.version = site.service.version, 0
    site.service.users[device.username].rules = []
    streams, fetches = len(site.service.asked("/auth/plugin/changes")), site.fetches(device.username)
    site.service.end_streams()
    wait_for(lambda: len(site.service.asked("/auth/plugin/changes")) > streams)
    assert device.publish("a") == 0
    assert site.code(device.username) == 0
    assert site.fetches(device.username) == fetches
    site.service.version = version + 1
    assert seconds_until(lambda: device.publish("a") == NOT_AUTHORIZED) < IN_FORCE_AGAIN

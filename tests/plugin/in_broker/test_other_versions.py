"""A service that does not speak the plugin's protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.devices import NOT_AUTHORIZED
from tests.plugin.fake_service import FakeService, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.plugin.in_broker.site import Site

pytestmark = pytest.mark.slow

FALLBACK = "does not speak this plugin's protocol"


def fallbacks(site: Site) -> int:
    return site.broker.log_text().count(FALLBACK)


def test_service_without_the_protocol_is_asked_about_each_access_until_it_has_it(
    new_site: Callable[..., Site],
) -> None:
    service = FakeService()
    service.speaks = False
    with service:
        site = new_site(service=service)
        site.broker.wait_for_log(FALLBACK)
        device = site.connected(site.user("readWrite a"))
        assert site.code(device.username, "wrong") == 5
        assert device.publish("a") == 0
        assert device.publish("b") == NOT_AUTHORIZED
        assert device.subscribe("a", "b") == [1, NOT_AUTHORIZED]
        question = {"username": device.username, "clientid": device.client_id, "topic": "b", "acc": 2}
        assert question in service.asked("/auth/acl")
        site.broker.reload()
        assert device.stayed_connected()
        wait_for(lambda: len(service.asked("/auth/plugin/changes")) > 1, 8)
        assert fallbacks(site) == 1
        service.speaks = True
        wait_for(lambda: service.streams, 8)
        wait_for(lambda: service.reports)
        asked = len(service.asked("/auth/acl"))
        assert device.publish("a") == 0
        assert site.connected(device.username).publish("b") == NOT_AUTHORIZED
        assert len(service.asked("/auth/acl")) == asked


def test_login_answered_without_rules_leads_to_a_question_for_each_access(new_site: Callable[..., Site]) -> None:
    """As while one of several processes still is an older version."""
    site = new_site()
    site.wait_until_up()
    user = site.user("readWrite a")
    site.service.answer_json("/auth/user", {"ok": True, "error": ""})
    device = site.connected(user)
    site.broker.wait_for_log(FALLBACK)
    site.service.answers.clear()
    assert device.publish("a") == 0
    assert device.publish("b") == NOT_AUTHORIZED
    assert len(site.service.asked("/auth/acl")) == 2
    streams = len(site.service.asked("/auth/plugin/changes"))
    site.service.end_streams()
    reports = len(site.service.reports)
    wait_for(lambda: len(site.service.asked("/auth/plugin/changes")) > streams)
    wait_for(lambda: len(site.service.reports) > reports)
    asked = len(site.service.asked("/auth/acl"))
    assert site.connected(user).publish("b") == NOT_AUTHORIZED
    assert device.publish("a") == 0
    assert len(site.service.asked("/auth/acl")) == asked
    assert fallbacks(site) == 1


def test_404_soon_after_the_stream_worked_counts_as_away(new_site: Callable[..., Site]) -> None:
    """A proxy answers so while authsvc is away: known clients continue for as long as they may, and no longer."""
    service = FakeService()
    with service:
        site = new_site("offline_seconds 3", service=service)
        site.wait_until_up()
        device = site.connected(site.user("readWrite a"))
        service.speaks = False
        service.end_streams()
        site.wait_until_down()
        assert device.publish("a") == 0
        wait_for(lambda: device.publish("a") == NOT_AUTHORIZED, 8)
        assert FALLBACK not in site.broker.log_text()

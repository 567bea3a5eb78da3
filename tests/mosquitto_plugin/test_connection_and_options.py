"""How the plugin keeps its connection, asks for superusers, and treats options of go-auth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.broker import BrokerError
from tests.devices import SOON
from tests.mosquitto_plugin.webhooks import ALLOW, BROKEN, DENY, HANG_UP, Reply

if TYPE_CHECKING:
    from tests.mosquitto_plugin.conftest import Site


# ---- The kept connection ----


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_call_that_dies_with_a_kept_connection_is_not_repeated(site: Site, method: str) -> None:
    site.configure("retry_count 0", f"http_method {method}")
    site.connected()
    site.webhooks.answer("/auth/user", HANG_UP, ALLOW)

    assert site.device(client_id="c2").is_dropped_without_connack()
    assert [call.fields["clientid"] for call in site.webhooks.calls] == ["c1", "c2"]


def test_a_get_that_dies_with_a_kept_connection_is_repeated(site: Site) -> None:
    site.configure("retry_count 0", "http_method GET")
    site.connected()
    site.webhooks.answer("/auth/user", HANG_UP, ALLOW)
    site.connected(client_id="c2")

    assert [call.fields["clientid"] for call in site.webhooks.calls] == ["c1", "c2", "c2"]


def test_a_connection_that_was_closed_while_idle_is_replaced_unseen(site: Site) -> None:
    site.configure("retry_count 0")
    site.webhooks.answer("/auth/user", Reply(closes=True))
    site.connected()
    assert site.webhooks.closed.wait(SOON)
    site.connected(client_id="c2")

    assert len({call.connection for call in site.webhooks.calls}) == 2


# ---- Superusers, and options that are refused ----


def test_a_superuser_is_asked_for_before_each_acl_and_passes_it(site: Site) -> None:
    site.webhooks.answer("/auth/superuser", DENY, BROKEN, ALLOW)
    site.configure("http_superuser_uri /auth/superuser")
    device = site.connected()

    assert device.subscribe("a", "b", "c") == [1, 1, 1]
    assert [call.path for call in site.webhooks.calls[1:]] == ["/auth/superuser", "/auth/acl"] * 2 + ["/auth/superuser"]
    assert site.webhooks.to("/auth/superuser")[0].body == b'{"username":"bob"}'


def test_an_error_about_the_superuser_counts_where_the_acl_does_not_allow(site: Site) -> None:
    site.webhooks.answer("/auth/superuser", BROKEN)
    site.webhooks.answer("/auth/acl", DENY)
    site.configure("http_superuser_uri /auth/superuser")
    device = site.connected()
    device.subscribe_unacknowledged("a")

    assert device.is_disconnected()


def test_no_superuser_is_asked_for_where_superusers_are_disabled(site: Site) -> None:
    site.configure("http_superuser_uri /auth/superuser", "disable_superuser true")
    site.connected().subscribe("a")
    assert site.webhooks.to("/auth/superuser") == []


def test_options_of_go_auth_that_change_nothing_here_are_accepted(site: Site) -> None:
    options = ("log_level debug", "hasher bcrypt", "hasher_cost 10", "http_verify_peer false", "http_with_tls false")
    site.configure(*options)
    site.connected()


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("cache true", "cache"),
        ("http_with_tls true", "http_with_tls"),
        ("backends files, http", "backends"),
        ("http_register user", "http_register"),
        ("http_method GET\nauth_opt_http_params_mode form", "http_params_mode"),
    ],
)
def test_an_option_that_would_change_go_auth_and_is_not_built_stops_the_broker(
    site: Site, option: str, named: str
) -> None:
    with pytest.raises(BrokerError, match=f"webhook plugin: wrong auth_opt: .*{named}"):
        site.configure(option)

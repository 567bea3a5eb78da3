"""Connections of one process: how many are admitted, in total and from one address, and when they are closed."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from typing import Any

import pytest

from authsvc.addresses import parse_networks
from authsvc.server.connection_limits import ConnectionLimits, Connections, LimitedConnection

HERE, THERE = "192.0.2.1", "192.0.2.2"
PROXY = "10.1.2.3"


class Socket:
    """Remembers its options."""

    def __init__(self) -> None:
        self.options: dict[tuple[int, int], int] = {}

    def setsockopt(self, level: int, option: int, value: int) -> None:
        self.options[level, option] = value


class Transport(asyncio.Transport):
    """A transport that remembers what was done to it."""

    def __init__(self, peer: tuple[str, int] | None) -> None:
        super().__init__()
        self.socket = Socket()
        self.written = b""
        self.done = ""
        self._peer = peer

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": self._peer, "socket": self.socket}.get(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def is_closing(self) -> bool:
        return bool(self.done)

    def close(self) -> None:
        self.done = "closed"

    def abort(self) -> None:
        self.done = "aborted"


class Inner(asyncio.Protocol):
    """A fake of gunicorn's protocol that records its events."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def connection_made(self, _transport: asyncio.BaseTransport) -> None:
        self.events.append("made")

    def data_received(self, data: bytes) -> None:
        self.events.append(data.decode())

    def eof_received(self) -> None:
        self.events.append("eof")

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")

    def connection_lost(self, _exc: Exception | None) -> None:
        self.events.append("lost")


class Site:
    """The connections of one process, opened from anywhere at any time."""

    def __init__(self, **limits: Any) -> None:
        exempt = parse_networks("10.0.0.0/8,2001:db8:1::/48")
        self.connections = Connections(replace(ConnectionLimits(100, 2, exempt), **limits))
        self.now = 1000.0
        self._port = 50_000

    def opens(self, address: str = HERE) -> Opened:
        self._port += 1
        return Opened(self, (address, self._port))

    def passes(self, seconds: float) -> None:
        self.now += seconds
        self.connections.sweep(self.now)


class Opened:
    """One connection to a site."""

    def __init__(self, site: Site, client: tuple[str, int] | None) -> None:
        self.inner, self.transport = Inner(), Transport(client)
        self.client = client or ("", 0)
        self.protocol = LimitedConnection(self.inner, site.connections, lambda: site.now)
        self.transport.set_protocol(self.protocol)
        self.protocol.connection_made(self.transport)

    @property
    def is_admitted(self) -> bool:
        return self.inner.events[:1] == ["made"]

    @property
    def is_open(self) -> bool:
        return not self.transport.done

    def sends(self, text: str) -> None:
        self.protocol.data_received(text.encode())

    def ends(self) -> None:
        self.protocol.connection_lost(None)


# How many.


def test_address_that_has_its_number_of_connections_gets_no_more_and_others_do() -> None:
    site = Site()
    first, second = site.opens(), site.opens()
    refused = site.opens()
    assert first.is_open
    assert second.is_open
    assert site.opens(THERE).is_admitted
    assert not refused.is_admitted
    assert refused.transport.written.startswith(b"HTTP/1.1 503 ")
    assert refused.transport.done == "closed"
    first.ends()
    assert site.opens().is_admitted


def test_listener_that_evicts_closes_the_oldest_connection_of_the_address() -> None:
    site = Site(evicts=True)
    oldest, other, elsewhere = site.opens(), site.opens(), site.opens(THERE)
    assert site.opens().is_admitted
    assert oldest.transport.done == "aborted"
    oldest.ends()
    assert other.is_open
    assert elsewhere.is_open
    assert site.opens().is_admitted
    assert not other.is_open


def test_all_connections_count_towards_the_total() -> None:
    site = Site(in_total=3, evicts=True)
    first = site.opens()
    site.opens(THERE)
    site.opens(PROXY)
    assert not site.opens("192.0.2.3").is_admitted
    assert not site.opens(PROXY).is_admitted
    first.ends()
    assert site.opens("192.0.2.3").is_admitted


def test_connection_of_a_proven_broker_counts_towards_the_total_only() -> None:
    site = Site(in_total=3, evicts=True)
    broker, other = site.opens(), site.opens()
    site.connections.trust(broker.client)
    site.connections.trust(broker.client)
    assert site.opens().is_admitted
    assert broker.is_open
    assert other.is_open
    assert not site.opens(THERE).is_admitted
    broker.transport.close()
    site.passes(1)
    assert site.opens(THERE).is_admitted


def test_connection_of_a_proven_broker_is_handed_over_and_has_no_deadline() -> None:
    site = Site()
    broker = site.opens()
    broker.sends("request")
    assert broker.transport.get_protocol() is broker.protocol
    site.connections.trust(broker.client)
    assert broker.transport.get_protocol() is broker.inner
    site.passes(3600)
    assert broker.is_open


def test_trusted_connections_are_closed_with_the_others() -> None:
    site = Site()
    asked, stopped, other = site.opens(), site.opens(THERE), site.opens()
    for each in (asked, stopped):
        site.connections.trust(each.client)
    site.connections.close(asked.client)
    assert asked.transport.done == "closed"
    site.passes(1)
    site.connections.close_all()
    assert asked.transport.done == "closed"
    assert [stopped.transport.done, other.transport.done] == ["aborted", "aborted"]


@pytest.mark.parametrize("address", [PROXY, "::ffff:10.1.2.3", "2001:db8:1::7"])
def test_trusted_proxy_has_no_limit_of_its_own(address: str) -> None:
    site = Site()
    assert [site.opens(address).is_admitted for _ in range(5)] == [True] * 5


def test_refused_connection_is_not_passed_on_and_not_counted_when_it_ends() -> None:
    site = Site(in_total=1)
    admitted, refused = site.opens(), site.opens()
    refused.sends("GET / HTTP/1.1\r\n")
    refused.protocol.pause_writing()
    refused.protocol.resume_writing()
    assert refused.protocol.eof_received() is None
    refused.ends()
    assert refused.inner.events == []
    assert not site.opens().is_admitted
    admitted.ends()
    assert site.opens().is_admitted


def test_connection_that_ended_before_it_was_accepted_is_dropped() -> None:
    site = Site(in_total=1)
    gone = Opened(site, None)
    assert gone.transport.done == "aborted"
    gone.ends()
    assert site.opens().is_admitted


def test_everything_is_passed_on_to_the_server_and_tcp_keep_alive_is_on() -> None:
    connection = Site().opens()
    connection.sends("a")
    connection.protocol.pause_writing()
    connection.protocol.resume_writing()
    connection.protocol.eof_received()
    connection.ends()
    assert connection.inner.events == ["made", "a", "pause", "resume", "eof", "lost"]
    options = connection.transport.socket.options
    assert options[socket.SOL_SOCKET, socket.SO_KEEPALIVE] == 1
    assert options[socket.IPPROTO_TCP, socket.TCP_KEEPIDLE] == 60


# For how long.


def test_deadlines_are_10_and_30_seconds_unless_given() -> None:
    limits = ConnectionLimits(1, 1)
    assert (limits.first_byte_seconds, limits.whole_request_seconds) == (10.0, 30.0)


def test_connection_that_sends_nothing_is_closed_after_10_seconds() -> None:
    site = Site()
    silent = site.opens()
    site.passes(9.9)
    assert silent.is_open
    site.passes(0.2)
    assert silent.transport.done == "aborted"


def test_incomplete_request_is_closed_30_seconds_after_its_first_byte() -> None:
    site = Site()
    slow = site.opens()
    site.passes(9)
    for _ in range(29):
        slow.sends("x")
        site.passes(1)
    assert slow.is_open
    slow.sends("x")
    site.passes(1)
    assert slow.transport.done == "aborted"


def test_connection_whose_request_is_complete_has_no_deadline_until_the_next_byte() -> None:
    site = Site()
    kept = site.opens()
    for _ in range(3):
        kept.sends("request")
        site.connections.request_complete(kept.client)
        site.passes(3600)
        assert kept.is_open
    kept.sends("half a request")
    site.passes(31)
    assert not kept.is_open


def test_request_that_arrived_behind_another_one_has_30_seconds_from_its_beginning() -> None:
    site = Site()
    kept = site.opens()
    kept.sends("request, and half of the next one")
    site.connections.request_complete(kept.client)
    site.connections.request_began(kept.client)
    site.passes(29)
    site.connections.request_began(kept.client)
    assert kept.is_open
    site.passes(2)
    assert not kept.is_open


def test_connection_can_be_closed_behind_its_answer() -> None:
    site = Site()
    asked, other = site.opens(), site.opens()
    site.connections.close(asked.client)
    assert asked.transport.done == "closed"
    assert other.is_open


def test_notices_about_a_connection_that_has_ended_change_nothing() -> None:
    site = Site(in_total=1)
    gone = site.opens()
    gone.ends()
    for notice in (
        site.connections.request_began,
        site.connections.request_complete,
        site.connections.trust,
        site.connections.close,
        site.connections.remove,
    ):
        notice(gone.client)
    assert gone.transport.done == ""
    assert site.opens().is_admitted
    assert not site.opens().is_admitted

"""The benchmarks' MQTT client says and understands what MQTT 3.1.1 says, byte for byte."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from bench import wire
from bench.wire import Fleet, Packet


def test_a_connect_is_spelled_as_the_standard_has_it() -> None:
    assert wire.connect_packet("c1", "bob", "pw") == (
        b"\x10\x17\x00\x04MQTT\x04\xc2\x00\x3c\x00\x02c1\x00\x03bob\x00\x02pw"
    )


def test_subscribe_publish_and_puback_are_too() -> None:
    assert wire.subscribe_packet(1, "a/#") == b"\x82\x08\x00\x01\x00\x03a/#\x00"
    assert wire.publish_packet("a/b", b"x") == b"\x30\x06\x00\x03a/bx"
    assert wire.publish_packet("a/b", b"x", 258) == b"\x32\x08\x00\x03a/b\x01\x02x"
    assert wire.puback_packet(258) == b"\x40\x02\x01\x02"
    assert (wire.PING, wire.DISCONNECT) == (b"\xc0\x00", b"\xe0\x00")


@pytest.mark.parametrize(("length", "encoded"), [(127, 1), (128, 2), (16_383, 2), (16_384, 3), (2_097_152, 4)])
def test_lengths_take_as_many_bytes_as_they_need_and_come_back(length: int, encoded: int) -> None:
    payload = bytes(length - 2 - len("t"))
    packet = wire.publish_packet("t", payload)
    assert len(packet) == 1 + encoded + length
    assert wire.split(packet) == ([Packet(wire.PUBLISH, 0, b"\x00\x01t" + payload)], b"")


def test_a_stream_is_split_wherever_it_is_cut() -> None:
    stream = wire.publish_packet("a", bytes(200), 7) + wire.puback_packet(9) + wire.PING
    whole, rest = wire.split(stream)
    assert (len(whole), rest) == (3, b"")
    for cut in range(len(stream)):
        first, rest = wire.split(stream[:cut])
        second, nothing = wire.split(rest + stream[cut:])
        assert first + second == whole
        assert nothing == b""


def test_a_packet_id_is_that_of_qos_1_and_qos_0_has_none() -> None:
    for packet_id in (None, 1, 65_535):
        (published,), _ = wire.split(wire.publish_packet("a/b", b"x", packet_id))
        assert wire.packet_id_of(published) == packet_id


def test_a_length_of_five_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="five"):
        wire.split(b"\x30\xff\xff\xff\xff\x01")


def test_clients_of_a_fleet_talk_to_whom_they_are_sent_to() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, Fleet(listener.getsockname()[1]) as fleet:
        received: list[Packet] = []
        client = fleet.client()
        client.on_packet = received.append
        client.on_end = lambda: received.append(Packet(0, 0, b"end"))
        client.send(wire.PING)
        accepted, _ = listener.accept()
        with closing(accepted):
            assert not fleet.run(0.05, lambda: bool(received))
            assert accepted.recv(10) == wire.PING
            accepted.sendall(b"\xd0\x00")
            assert fleet.run(10, lambda: bool(received))
        assert fleet.run(10, lambda: len(received) == 2)
        assert received == [Packet(wire.PINGRESP, 0, b""), Packet(0, 0, b"end")]


def test_what_is_due_later_is_done_in_its_order() -> None:
    done: list[str] = []
    with Fleet(1) as fleet:
        fleet.later(0.02, lambda: done.append("second"))
        fleet.later(0.01, lambda: done.append("first"))
        assert fleet.run(10, lambda: len(done) == 2)
    assert done == ["first", "second"]

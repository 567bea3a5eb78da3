"""SIGHUP, after which Mosquitto asks about every client again."""

from __future__ import annotations

import base64
import os
import signal
import socket
from typing import TYPE_CHECKING

from tests.broker import free_port
from tests.devices import NOT_AUTHORIZED
from tests.plugin.fake_service import FakeUser, wait_for
from tests.plugin.in_broker.raw_mqtt import ACCEPTED, connect_packet

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.plugin.in_broker.site import Site

PERSISTENT = "persistence true\npersistence_location {dir}/\nmax_queued_messages 100"


def asked(site: Site) -> int:
    """Return the number of requests that are not reports."""
    return sum(path != "/auth/plugin/report" for path, _ in list(site.service.requests))


def test_reload_costs_nobody_a_connection_and_asks_the_service_for_nothing(site: Site) -> None:
    devices = [site.connected(site.user("readWrite a")) for _ in range(20)]
    devices[0].subscribe("a")
    sessions = [site.connected(site.user("read a"), persistent=True) for _ in range(3)]
    for session in sessions:
        session.subscribe("a")
        session.stop()
    before = asked(site)
    for _ in range(3):
        site.broker.reload()
    assert all(device.stayed_connected() for device in devices)
    assert devices[1].publish("a", "x") == 0
    assert devices[0].received() == ("a", b"x")
    assert asked(site) == before
    for session in sessions:
        back = site.connected(session.username, persistent=True, client_id=session.client_id)
        assert back.received() == ("a", b"x")


def test_reload_while_the_service_hangs_costs_nobody_a_connection(site: Site) -> None:
    devices = [site.connected(site.user("readWrite a")) for _ in range(3)]
    site.service.resumed.clear()
    site.broker.reload()
    assert all(device.stayed_connected() for device in devices)
    site.service.resumed.set()


def test_clients_are_still_ended_after_a_reload(site: Site) -> None:
    device = site.connected(site.user())
    site.broker.reload()
    site.service.replace(device.username, password="new")
    assert device.is_disconnected()


def test_new_client_during_a_reload_must_prove_its_password(site: Site) -> None:
    user = site.user()
    assert site.code(user) == 0
    for _ in range(10):
        client = site.raw()
        os.kill(site.broker.pid, signal.SIGSTOP)
        client.send(connect_packet(site.new_name("client"), user.encode(), b"wrong"))
        os.kill(site.broker.pid, signal.SIGHUP)
        os.kill(site.broker.pid, signal.SIGCONT)
        assert client.read(4) == b"\x20\x02\x00\x05"


def test_new_websockets_client_during_a_reload_must_prove_its_password(
    new_site: Callable[..., Site], tmp_path: Path
) -> None:
    """The broker reads a pipe as part of its configuration, so the reload lasts until the client has sent all."""
    included = tmp_path / "conf.d"
    included.mkdir()
    port = free_port()
    site = new_site(before=f"persistence false\ninclude_dir {included}\nlistener {port}\nprotocol websockets")
    site.wait_until_up()
    user = site.user()
    assert site.code(user) == 0
    connection = socket.create_connection(("127.0.0.1", port), timeout=5)
    upgrade(connection)
    os.mkfifo(included / "pipe.conf")
    site.broker.reload()
    connection.sendall(frame(connect_packet(site.new_name("client"), user.encode(), b"wrong")))
    (included / "pipe.conf").write_text("")
    assert ACCEPTED not in connection.recv(100)
    assert site.logins_asked(user)[-1]["password"] == "wrong"
    connection.close()


def upgrade(connection: socket.socket) -> None:
    """Begin to speak websockets."""
    key = base64.b64encode(os.urandom(16)).decode()
    lines = (
        "GET /mqtt HTTP/1.1",
        "Host: broker",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Protocol: mqtt",
    )
    connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
    assert connection.recv(4096).startswith(b"HTTP/1.1 101")


def frame(data: bytes) -> bytes:
    """Return a masked binary frame; the mask of zeros leaves the data as it is."""
    assert len(data) < 126
    return bytes([0x82, 0x80 | len(data)]) + bytes(4) + data


def test_session_restored_from_disk_survives_a_restart_and_a_reload(new_site: Callable[..., Site]) -> None:
    site = new_site(before=PERSISTENT)
    site.wait_until_up()
    user = site.user("readWrite a", "readWrite b")
    device = site.connected(user, persistent=True)
    assert device.subscribe("a", "b") == [1, 1]
    device.stop()
    site.broker.stop()
    site.service.reports.clear()
    site.broker.start()
    site.wait_until_up()
    site.broker.reload()
    site.service.replace(user, rules=["read a"])
    writer = site.connected(site.user("write a", "write b"))
    assert writer.publish("b", "forbidden by now") == 0
    assert writer.publish("a", "queued") == 0
    site.broker.reload()
    assert site.device(user, "wrong", persistent=True, client_id=device.client_id).connack() == NOT_AUTHORIZED
    back = site.connected(user, persistent=True, client_id=device.client_id)
    assert back.received() == ("a", b"queued")
    assert back.received_so_far() == []


def test_restored_session_of_a_disabled_user_gets_no_message(new_site: Callable[..., Site]) -> None:
    site = new_site(before=PERSISTENT)
    site.wait_until_up()
    user = site.user("readWrite a")
    device = site.connected(user, persistent=True)
    assert device.subscribe("a") == [1]
    device.stop()
    site.broker.stop()
    site.service.users[user] = FakeUser(refused="user-disabled")
    site.service.reports.clear()
    site.broker.start()
    site.wait_until_up()
    assert site.connected(site.user("write a")).publish("a", "x") == 0
    site.broker.reload()
    wait_for(lambda: site.denials(user))
    assert site.denials(user)[0]["reason"] == "user-disabled"
    assert site.code(user) != 0


def test_retained_message_whose_publisher_was_deleted_is_not_delivered_after_a_restart(
    new_site: Callable[..., Site],
) -> None:
    site = new_site(before=f"{PERSISTENT}\ncheck_retain_source true")
    site.wait_until_up()
    kept, deleted = site.user("write kept/#"), site.user("write kept/#")
    site.connected(kept).publish("kept/by-a-user", "x", retain=True)
    site.connected(deleted).publish("kept/by-nobody", "x", retain=True)
    site.broker.stop()
    del site.service.users[deleted]
    site.service.reports.clear()
    site.broker.start()
    site.wait_until_up()
    reader = site.connected(site.user("read kept/#"))
    assert reader.subscribe("kept/#") == [1]
    assert reader.received() == ("kept/by-a-user", b"x")
    assert reader.received_so_far() == []

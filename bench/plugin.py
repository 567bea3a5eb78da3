"""Figure 8: authsvc's own plugin beside Mosquitto's dynamic security plugin: throughput, changes, an outage.

python -m bench.plugin [--rounds N] [--quick]
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import tempfile
import threading
import time
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from bench import command, wire
from bench.deployment import QUIET, default_service
from bench.fleet import PingingDevice
from bench.plot import Bar, bars
from bench.population import PASSWORD, Population, populated_service, username
from bench.report import Figure, Limit, number
from bench.turns import in_turns
from tests.broker import Mosquitto, authsvc_plugin_config, build_authsvc_plugin, free_port
from tests.devices import V5, Device
from tests.service import permission

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.turns import Turns
    from tests.service import Service

_OURS, _DYNSEC, _OPEN = "authsvc's plugin", "dynamic security", "no plugin"
_RULES = (1, 10, 100, 1000)
_TOPICS = 20
_PAYLOAD = b"x" * 64
_IN_FLIGHT = 2000  # messages that were sent and have not arrived
_DEVICES = [f"press-{each}" for each in range(20)]
_LOGINS = "logins a second"
_DYNSEC_ITERATIONS = 101  # its default
_PATIENCE = 60.0


class Sizes(NamedTuple):
    """Timed messages and logins, changes, users that change at once, and the seconds of the outage."""

    messages: int
    logins: int
    changes: int
    changed_at_once: int
    outage: float


def measure(rounds: int, *, quick: bool) -> Figure:
    """Measure throughput in turns, then changes under load, a change of many users at once, and an outage."""
    sizes = Sizes(2_000, 100, 10, 50, 5.0) if quick else Sizes(40_000, 800, 100, 1000, 60.0)
    throughput = _throughput(rounds, sizes)
    with ExitStack() as running, tempfile.TemporaryDirectory() as directory:
        service = running.enter_context(default_service(Path(directory)))
        asking = running.enter_context(_broker(Path(directory) / "broker", _our_config(service)))
        changes = _changes(service, asking, sizes.changes)
        outage = _outage(service, asking, sizes.outage)
    stall = _stall(sizes.changed_at_once)
    return _figure(throughput, changes, outage, stall, sizes)


# ---- Throughput ----


def _throughput(rounds: int, sizes: Sizes) -> Turns[float]:
    with ExitStack() as running, tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        service = running.enter_context(default_service(directory))
        for rules in _RULES:
            for each in _DEVICES if rules == 1 else _DEVICES[:1]:
                service.create_user(_user(each, rules), PASSWORD, *_permissions(rules))
        configs = {
            _OPEN: "allow_anonymous true\n",
            _DYNSEC: _dynsec_config(directory),
            _OURS: _our_config(service),
        }
        subjects = {}
        for plugin, config in configs.items():
            fleet = running.enter_context(wire.Fleet(running.enter_context(_broker(directory / plugin, config)).port))
            for each in _DEVICES:
                fleet.logged_in_after_retries(_user(each, 1), PASSWORD).close()
            subjects[_LOGINS, plugin] = partial(_logins, fleet, sizes.logins)
            for rules in _RULES:
                user = _user(_DEVICES[0], rules)
                fleet.logged_in_after_retries(user, PASSWORD).close()
                subjects[_messages(rules), plugin] = partial(_delivered, fleet.port, user, rules, sizes.messages)
        return in_turns({f"{what}, {plugin}": measured for (what, plugin), measured in subjects.items()}, rounds)


def _messages(rules: int) -> str:
    return f"messages a second, {rules:,} rule{'s' if rules > 1 else ''} per user"


def _user(device: str, rules: int) -> str:
    return f"{device}-of-{rules}"


def _resources(rules: int) -> list[str]:
    """Return topic filters of which only the last one matches the messages."""
    return [f"plant/{each}/sensors/#" for each in range(rules - 1)] + ["devices/+/#"]


def _permissions(rules: int) -> list[str]:
    return [f"readWrite {resource}" for resource in _resources(rules)]


def _our_config(service: Service) -> str:
    return authsvc_plugin_config(
        plugin=build_authsvc_plugin(), service_port=service.broker_port, listener_port=free_port()
    )


def _dynsec_config(directory: Path) -> str:
    """Write the file of the dynamic security plugin with the same users and rules, and return a configuration."""
    clients, roles = [], []
    for rules in _RULES:
        kinds = ("publishClientSend", "publishClientReceive", "subscribePattern")
        acls = [
            {"acltype": kind, "topic": resource, "priority": 0, "allow": True}
            for resource in _resources(rules)
            for kind in kinds
        ]
        roles.append({"rolename": f"of-{rules}", "acls": acls})
        clients += [
            {"username": _user(each, rules), "roles": [{"rolename": f"of-{rules}"}], **_dynsec_password()}
            for each in (_DEVICES if rules == 1 else _DEVICES[:1])
        ]
    access = dict.fromkeys(("publishClientSend", "publishClientReceive", "subscribe", "unsubscribe"), False)
    file = directory / "dynamic-security.json"
    text = json.dumps({"defaultACLAccess": access | {"unsubscribe": True}, "clients": clients, "roles": roles})
    file.write_text(text)
    plugin = Path("/usr/lib/x86_64-linux-gnu/mosquitto_dynamic_security.so")
    if not plugin.exists():
        plugin = next(Path("/usr/lib").glob("*/mosquitto_dynamic_security.so"))
    return f"allow_anonymous false\nplugin {plugin}\nplugin_opt_config_file {file}\n"


def _dynsec_password() -> dict[str, str | int]:
    salt = os.urandom(12)
    digest = hashlib.pbkdf2_hmac("sha512", PASSWORD.encode(), salt, _DYNSEC_ITERATIONS)
    return {
        "password": base64.b64encode(digest).decode(),
        "salt": base64.b64encode(salt).decode(),
        "iterations": _DYNSEC_ITERATIONS,
    }


@contextmanager
def _broker(directory: Path, config: str) -> Iterator[Mosquitto]:
    """Run a broker whose queues hold every message that is measured.

    With an unlimited queue Mosquitto would disconnect a client whose message is denied.
    """
    directory.mkdir(exist_ok=True)
    if "listener" not in config:
        config = f"listener {free_port()} 127.0.0.1\n{config}"
    with Mosquitto(f"{config}\nmax_queued_messages 1000000\nset_tcp_nodelay true\n{QUIET}\n", directory) as broker:
        yield broker


def _logins(fleet: wire.Fleet, wanted: int) -> float:
    """Return the logins per second of twenty devices that disconnect and reconnect at once."""
    done = 0

    def come(user: str) -> None:
        client = fleet.client()
        client.on_packet = lambda packet: go(user, client, packet)
        client.send(wire.connect_packet(user, user, PASSWORD))

    def go(user: str, client: wire.Client, packet: wire.Packet) -> None:
        nonlocal done
        if packet.kind != wire.CONNACK or packet.body[1]:
            raise RuntimeError("a login was refused")
        done += 1
        client.close()
        come(user)

    started = perf_counter()
    for device in _DEVICES:
        come(_user(device, 1))
    if not fleet.run(_PATIENCE, lambda: done >= wanted):
        raise RuntimeError("the broker came to a halt")
    taken = perf_counter() - started
    fleet.close_all()
    return done / taken


def _delivered(port: int, user: str, rules: int, messages: int) -> float:
    """Return the messages per second, published and delivered with QoS 0 on twenty topics."""
    packets = [wire.publish_packet(f"devices/{user}/{each:02}", _PAYLOAD) for each in range(_TOPICS)]
    size = len(packets[0])
    batch = b"".join(packets)
    with (
        closing(_connection(port, f"{user}-s", user)) as subscriber,
        closing(_connection(port, f"{user}-p", user)) as out,
    ):
        subscriber.sendall(wire.subscribe_packet(1, "devices/+/#"))
        if subscriber.recv(16)[-1] == 0x80:
            raise RuntimeError(f"a subscription with {rules} rules was refused")
        arrived = 0
        started = perf_counter()
        for sent in range(0, messages, _TOPICS):
            out.sendall(batch)
            while sent - arrived // size > _IN_FLIGHT:
                arrived += len(_received(subscriber))
        while arrived < messages * size:
            arrived += len(_received(subscriber))
        return messages / (perf_counter() - started)


def _connection(port: int, client_id: str, user: str) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), _PATIENCE)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(wire.connect_packet(client_id, user, PASSWORD, keep_alive=0))
    if connection.recv(4)[3:] != b"\0":
        raise RuntimeError(f"the login of {user} was refused")
    return connection


def _received(connection: socket.socket) -> bytes:
    received = connection.recv(1 << 20)
    if not received:
        raise RuntimeError("the broker ended a connection")
    return received


# ---- Changes ----


@contextmanager
def _flood(port: int, user: str) -> Iterator[None]:
    """Publish and receive as many messages as the broker handles during the block."""
    enough = threading.Event()

    def run() -> None:
        while not enough.is_set():
            _delivered(port, user, 1, 2_000)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()


def _changes(service: Service, broker: Mosquitto, count: int) -> list[float]:
    """Return the seconds until a permission that the API grants is felt by a connected client, under load."""
    service.create_user("flood", PASSWORD, "readWrite devices/+/#")
    service.create_user("changed", PASSWORD)
    _login(broker, "flood").stop()
    device, taken = _login(broker, "changed"), []
    with _flood(broker.port, "flood"):
        for each in range(count):
            _call(service, "PATCH", "/api/users/changed", json={"permissions": [permission(f"write news/{each}")]})
            started = perf_counter()
            while device.publish(f"news/{each}"):
                if perf_counter() - started > _PATIENCE:
                    raise RuntimeError("a change never came into force")
            taken.append(perf_counter() - started)
    device.stop()
    return taken


def _call(service: Service, method: str, path: str, **options: Any) -> None:
    answer = service.call(method, path, **options)
    if not answer.ok:
        raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text}")


def _login(broker: Mosquitto, user: str) -> Device:
    """Return a connected device; it retries while its password is being verified."""
    for _ in range(40):
        device = Device(user, PASSWORD, user, V5)
        device.start(broker.port)
        if device.connack() == 0:
            return device
        device.stop()
        time.sleep(0.25)
    raise ConnectionRefusedError(user)


class Outage(NamedTuple):
    """The messages published while the service was away and until a while after, and what went wrong."""

    published: int
    refused: int
    lost: int
    ended: int


def _outage(service: Service, broker: Mosquitto, seconds: float) -> Outage:
    """Kill the service under connected clients, start it again, and count what they lost."""
    for each in range(10):
        service.create_user(f"line-{each}", PASSWORD, "write state/%u")
    service.create_user("listener", PASSWORD, "read state/#")
    listener = _login(broker, "listener")
    listener.subscribe("state/#")
    devices = [_login(broker, f"line-{each}") for each in range(10)]
    published = refused = 0

    def publish(for_seconds: float) -> None:
        nonlocal published, refused
        ends_at = time.monotonic() + for_seconds
        while time.monotonic() < ends_at:
            for device in devices:
                published += 1
                refused += device.publish(f"state/{device.username}") != 0
            time.sleep(0.05)

    publish(1.0)
    service.kill()
    publish(seconds)
    starting = threading.Thread(target=service.start)
    starting.start()
    while starting.is_alive():
        publish(0.5)
    publish(5.0)
    lost = published - refused - len(listener.received_so_far())
    ended = sum(not device.ends.empty() for device in [*devices, listener])
    for device in [*devices, listener]:
        device.stop()
    return Outage(published, refused, lost, ended)


def _stall(users: int) -> float:
    """Return the longest wait for a PINGRESP, in seconds, while a role of this many connected users changes."""
    with ExitStack() as running, tempfile.TemporaryDirectory() as directory:
        service = running.enter_context(populated_service(Population(users, 5, 1)))
        running.enter_context(service)
        broker = running.enter_context(_broker(Path(directory), _our_config(service)))
        fleet = running.enter_context(wire.Fleet(broker.port))
        _let_in(fleet, [username(each) for each in range(users)])
        pinging = PingingDevice(fleet, fleet.logged_in("pinging", username(0), PASSWORD))
        fleet.run(2.0)
        worst = 0.0
        for each in range(5):
            pinging.longest_stall = 0.0
            body = {"permissions": [permission(f"write lines/{each}/#")]}
            changing = threading.Thread(
                target=_call, args=(service, "PATCH", "/api/roles/line-0000"), kwargs={"json": body}
            )
            changing.start()
            fleet.run(3.0)
            changing.join()
            worst = max(worst, pinging.stalled())
        if not pinging.alive:
            raise RuntimeError("the pinging device lost its session")
        return worst


def _let_in(fleet: wire.Fleet, users: Sequence[str]) -> None:
    """Connect one client of each user, retrying those that are refused while their passwords are hashed."""
    waiting = list(users)
    deadline = time.monotonic() + 20 * _PATIENCE
    while waiting and time.monotonic() < deadline:
        batch, waiting = waiting[:50], waiting[50:]
        refused: list[str] = []
        answered = 0

        def answer(user: str, client: wire.Client, packet: wire.Packet) -> None:
            nonlocal answered
            answered += 1
            client.on_packet = lambda _: None
            if packet.body[1]:
                client.close()
                refused.append(user)  # noqa: B023 - called before the next batch

        for user in batch:
            client = fleet.client()
            client.on_packet = partial(answer, user, client)
            client.send(wire.connect_packet(user, user, PASSWORD, keep_alive=0))
        fleet.run(_PATIENCE, lambda: answered >= len(batch))  # noqa: B023
        waiting += refused
        if refused:
            fleet.run(0.3)
    if waiting:
        raise RuntimeError(f"{len(waiting)} clients were never let in")


# ---- The report ----


def _figure(throughput: Turns[float], changes: list[float], outage: Outage, stall: float, sizes: Sizes) -> Figure:
    plugins = (_OPEN, _DYNSEC, _OURS)
    rows, plotted = [], []
    for what in (_LOGINS, *map(_messages, _RULES)):
        rates = {plugin: throughput.median(f"{what}, {plugin}", float) for plugin in plugins}
        ratio = throughput.ratio(f"{what}, {_OURS}", f"{what}, {_DYNSEC}", float)
        rows.append([what, *(number(rates[plugin]) for plugin in plugins), f"{ratio:.2f}"])
        plotted += [Bar(f"{what}, {plugin}", rates[plugin], int(plugin == _OURS)) for plugin in plugins]
    ours_of_one = f"{_messages(1)}, {_OURS}"
    beside_one = {rules: throughput.ratio(f"{_messages(rules)}, {_OURS}", ours_of_one, float) for rules in (100, 1000)}
    limits = [
        Limit(
            "messages delivered a second beside dynamic security's",
            throughput.ratio(ours_of_one, f"{_messages(1)}, {_DYNSEC}", float),
            at_least=0.8,
        ),
        Limit(
            "warm logins a second beside dynamic security's",
            throughput.ratio(f"{_LOGINS}, {_OURS}", f"{_LOGINS}, {_DYNSEC}", float),
            at_least=0.8,
        ),
        *(
            Limit(f"messages delivered a second with {rules:,} rules per user beside 1 rule", ratio, at_least=0.9)
            for rules, ratio in beside_one.items()
        ),
        Limit(f"a change in force under load, the median of {len(changes)}", median(changes), at_most=0.3, unit="s"),
        Limit("a change in force under load, the longest", max(changes), at_most=1.0, unit="s"),
        Limit(
            "service away: messages of connected clients refused or lost",
            outage.refused + outage.lost,
            at_most=0,
            unit="",
        ),
        Limit("service away: connections ended", outage.ended, at_most=0, unit=""),
        Limit(
            f"longest wait for a PINGRESP while {sizes.changed_at_once:,} users change at once",
            stall * 1000,
            at_most=50,
            unit="ms",
        ),
    ]
    return Figure(
        "8. Deciding in the broker",
        "Mosquitto alone, with its dynamic security plugin, and with authsvc's own plugin, all with the same users; "
        "messages of 64 bytes on twenty topics, published and delivered with QoS 0; warm logins of twenty devices. "
        "Only the last rule of a user matches.",
        [["", *plugins, f"{_OURS} beside {_DYNSEC}"], *rows],
        limits,
        f"The service was killed and started again after {sizes.outage:.0f} s; {outage.published:,} messages were "
        "published before, during and after the outage. Changes were made while messages flowed as fast as the broker "
        "handles them, and are timed from the answer of the API. The users that change at once have a role in "
        "common, and each is connected.",
        {"plugin.svg": bars("Through Mosquitto, a second", "", plotted)},
    )


if __name__ == "__main__":
    command.run(measure, __doc__)

"""Figure 2: logins and messages per second through Mosquitto, compared with a bare callable behind it.

python -m bench.whole_way [--rounds N] [--quick]
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from bench import bare, command, wire
from bench.deployment import broker, default_service
from bench.plot import Bar, bars
from bench.report import Figure, Limit, number
from bench.turns import in_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.turns import Turns

_DEVICES = [f"press-{number}" for number in range(20)]
_PERMISSIONS = ("readWrite devices/%u/#", "read devices/#", "read site/announcements", "write alarms/%u")
_AT_ONCE = 20  # unacknowledged messages, so that the broker never waits for the next one
_BARE, _OURS = "bare callable", "authsvc"
_LOGINS, _ONE, _TEN = _WHAT = (
    "logins",
    "messages delivered to one subscriber",
    "messages delivered to ten subscribers",
)
_LIMITED = (_LOGINS, _ONE)
_TURNS = 2  # turns per round
_PATIENCE = 60.0


class Sizes(NamedTuple):
    """The numbers of timed logins and messages."""

    logins: int
    messages: int


def measure(rounds: int, *, quick: bool) -> Figure:
    """Measure alternately a broker with the service and a broker with a bare callable."""
    sizes = Sizes(100, 200) if quick else Sizes(800, 1500)
    with ExitStack() as running, tempfile.TemporaryDirectory() as directory:
        service = running.enter_context(default_service(Path(directory)))
        for device in _DEVICES:
            service.create_user(device, _password(device), *_PERMISSIONS)
        ports = {_BARE: running.enter_context(bare.running("asgi")), _OURS: service.broker_port}
        measured = {}
        for name, port in ports.items():
            asking = running.enter_context(broker(Path(directory) / name, port))
            fleet = running.enter_context(wire.Fleet(asking.port))
            _warm(fleet, sizes)
            measured[name] = _measured(fleet, sizes)
        # Compared subjects are measured one directly after the other.
        subjects = {_subject(what, name): measured[name][what] for what in _WHAT for name in ports}
        return _figure(in_turns(subjects, rounds * _TURNS))


def _subject(what: str, name: str) -> str:
    return f"{what}, {name}"


def _password(device: str) -> str:
    return f"secret of {device}"


def _warm(fleet: wire.Fleet, sizes: Sizes) -> None:
    """Let each device log in once and send each request once, so that all answers are cached."""
    for device in _DEVICES:
        fleet.logged_in_after_retries(device, _password(device)).close()
    _delivered(fleet, 10, sizes.messages // 10)


def _measured(fleet: wire.Fleet, sizes: Sizes) -> dict[str, Callable[[], float]]:
    return {
        _LOGINS: partial(_logins, fleet, sizes.logins),
        _ONE: partial(_delivered, fleet, 1, sizes.messages),
        _TEN: partial(_delivered, fleet, 10, sizes.messages // 4),
    }


def _logins(fleet: wire.Fleet, wanted: int) -> float:
    """Return the logins per second of twenty devices that disconnect and reconnect at once."""
    done = 0

    def come(device: str) -> None:
        client = fleet.client()
        client.on_packet = lambda packet: go(device, client, packet)
        client.send(wire.connect_packet(device, device, _password(device)))

    def go(device: str, client: wire.Client, packet: wire.Packet) -> None:
        nonlocal done
        if packet.kind != wire.CONNACK or packet.body[1]:
            raise RuntimeError("a login was refused")
        done += 1
        client.close()
        come(device)

    started = perf_counter()
    for device in _DEVICES:
        come(device)
    _run(fleet, lambda: done >= wanted)
    taken = perf_counter() - started
    fleet.close_all()
    return done / taken


def _delivered(fleet: wire.Fleet, subscribers: int, messages: int) -> float:
    """Return the delivered messages per second of one device that publishes with QoS 1."""
    arrived = acknowledged = 0

    def arrive(packet: wire.Packet) -> None:
        nonlocal arrived
        arrived += packet.kind == wire.PUBLISH

    for device in _DEVICES[1 : subscribers + 1]:
        _subscribe(fleet, device).on_packet = arrive
    publisher = fleet.logged_in(_DEVICES[0], _DEVICES[0], _password(_DEVICES[0]))
    unsent = _messages(messages)

    def acknowledge(packet: wire.Packet) -> None:
        nonlocal acknowledged
        acknowledged += packet.kind == wire.PUBACK
        publisher.send(next(unsent, b""))

    publisher.on_packet = acknowledge
    started = perf_counter()
    for _ in range(_AT_ONCE):
        publisher.send(next(unsent, b""))
    _run(fleet, lambda: arrived >= messages * subscribers and acknowledged >= messages)
    taken = perf_counter() - started
    fleet.close_all()
    return arrived / taken


def _messages(wanted: int) -> Iterator[bytes]:
    for each in range(wanted):
        topic = f"devices/{_DEVICES[0]}/sensors/{each % 20}"
        yield wire.publish_packet(topic, b"x" * 64, each % 65_535 + 1)


def _subscribe(fleet: wire.Fleet, device: str) -> wire.Client:
    subscriber = fleet.logged_in(device, device, _password(device))
    answers: list[wire.Packet] = []
    subscriber.on_packet = answers.append
    subscriber.send(wire.subscribe_packet(1, "devices/#"))
    _run(fleet, lambda: bool(answers))
    if answers[0].body[-1] == 0x80:
        raise RuntimeError("a subscription was refused")
    return subscriber


def _run(fleet: wire.Fleet, until: wire.Condition) -> None:
    if not fleet.run(_PATIENCE, until):
        raise RuntimeError("the broker came to a halt")


def _figure(turns: Turns[float]) -> Figure:
    rows, limits, plotted = [], [], []
    for what in _WHAT:
        names = {name: _subject(what, name) for name in (_BARE, _OURS)}
        rates = {name: turns.median(subject, float) for name, subject in names.items()}
        ratio = turns.ratio(names[_OURS], names[_BARE], float)
        rows.append([what, number(rates[_BARE]), number(rates[_OURS]), f"{ratio:.2f}"])
        plotted += [Bar(names[name], rates[name], int(name == _OURS)) for name in (_BARE, _OURS)]
        if what in _LIMITED:
            limits.append(Limit(f"{what} a second beside the bare callable's", ratio, at_least=0.9))
    return Figure(
        "2. The whole way, through Mosquitto",
        "Mosquitto with the tests' plugin, which asks as go-auth does and remembers nothing; warm logins of twenty "
        "devices; messages of 64 bytes on twenty topics, published with QoS 1 and delivered with QoS 0.",
        [["a second", f"behind it a {_BARE}", f"behind it {_OURS}", "ratio"], *rows],
        limits,
        "The bare callable runs on gunicorn's asgi worker and answers yes. A message costs one question of its "
        "publisher and one of each subscriber.",
        {"whole_way.svg": bars("Through Mosquitto, a second", "", plotted)},
    )


if __name__ == "__main__":
    command.run(measure, __doc__)

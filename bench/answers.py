"""Figure 1: response times of `/auth/acl` and a warm `/auth/user`, compared with bare callables.

python -m bench.answers [--rounds N] [--quick]
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack, closing
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING

from bench import bare, command
from bench.broker_connection import BrokerConnection, acl_request, user_request
from bench.deployment import default_service
from bench.plot import Bar, bars
from bench.report import Figure, Limit
from bench.turns import Times, in_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.turns import Turns
    from tests.service import Service

_TURNS = 3  # turns per round, short ones, because the load of a machine changes
_DEVICES = [f"press-{number}" for number in range(20)]
_PERMISSIONS = (
    "readWrite devices/%u/#",
    "read devices/+/recipe",
    "read site/announcements",
    "write alarms/%u",
    "deny read devices/+/keys/#",
)
_ACL, _NEW, _USER = "`/auth/acl`, asked before", "`/auth/acl`, never asked before", "`/auth/user`, warm"
_OURS = (_ACL, _NEW, _USER)
_LIMITED = (_ACL, _USER)  # repeated requests, the usual load; new requests are shown without a limit


def measure(rounds: int, *, quick: bool) -> Figure:
    """Measure the service and each of gunicorn's worker classes alternately."""
    asked = 300 if quick else 1000
    with ExitStack() as running, tempfile.TemporaryDirectory() as directory:
        subjects = {
            _bare(worker_class): partial(
                _times, running.enter_context(bare.running(worker_class)), _known(), asked, kept=worker_class != "sync"
            )
            for worker_class in bare.WORKER_CLASSES
        }
        service = running.enter_context(default_service(Path(directory)))
        _create_devices(service)
        ours = {_ACL: _known(), _NEW: _new(), _USER: _logins()}
        subjects |= {name: partial(_times, service.broker_port, questions, asked) for name, questions in ours.items()}
        return _figure(in_turns(subjects, rounds * _TURNS))


def _create_devices(service: Service) -> None:
    for device in _DEVICES:
        service.create_user(device, f"secret of {device}", *_PERMISSIONS)
    with closing(BrokerConnection(service.broker_port)) as connection:
        for question in islice(_logins(), len(_DEVICES)):
            connection.warm(question)


def _times(port: int, questions: Iterator[bytes], asked: int, *, kept: bool = True) -> Times:
    with closing(BrokerConnection(port, kept=kept)) as connection:
        connection.times(islice(questions, 200))  # warm up
        return Times.of(connection.times(list(islice(questions, asked))))


def _known() -> Iterator[bytes]:
    """Yield 200 requests repeatedly."""
    while True:
        for number in range(10):
            yield from (acl_request(device, f"devices/{device}/state/{number}") for device in _DEVICES)


def _new() -> Iterator[bytes]:
    for number in count():
        yield from (acl_request(device, f"devices/{device}/jobs/{number}") for device in _DEVICES)


def _logins() -> Iterator[bytes]:
    while True:
        yield from (user_request(device, f"secret of {device}") for device in _DEVICES)


def _figure(turns: Turns[Times]) -> Figure:
    workers = [_bare(worker_class) for worker_class in bare.WORKER_CLASSES]
    fastest = min(workers, key=lambda name: turns.median(name, _p50))
    rows = [
        [
            name,
            f"{turns.median(name, _p50) * 1e6:.0f} us",
            f"{turns.median(name, _p99) * 1e6:.0f} us",
            f"{turns.ratio(name, fastest, _p50):.2f}",
            f"{turns.median(name, lambda times: times.p99 / times.p50):.1f}",
        ]
        for name in (*workers, *_OURS)
    ]
    return Figure(
        "1. One answer",
        "One kept connection, one request in flight, the default deployment, twenty users with five permissions each.",
        [["what answers", "p50", "p99", "p50 beside the fastest bare", "p99 / p50"], *rows],
        [limit for name in _LIMITED for limit in _limits(turns, name, fastest)],
        "The bare callable reads the request and answers yes; gunicorn's sync worker keeps no connection, so there "
        "each question opens one. A question that was asked before is answered from memory while policy stays the "
        "same; one never asked before is decided by the user's rules.",
        {"answers.svg": _plot(turns, (*workers, *_OURS))},
    )


def _limits(turns: Turns[Times], name: str, fastest: str) -> list[Limit]:
    return [
        Limit(f"{name}: p50 beside the fastest bare callable", turns.ratio(name, fastest, _p50), at_most=1.15),
        Limit(f"{name}: p99 beside its p50", turns.median(name, lambda times: times.p99 / times.p50), at_most=3),
    ]


def _plot(turns: Turns[Times], names: tuple[str, ...]) -> str:
    rows = [Bar(name.replace("`", ""), turns.median(name, _p50) * 1e6, int(name in _OURS)) for name in names]
    return bars("How long a broker waits for one answer (p50)", "us", rows)


def _bare(worker_class: str) -> str:
    return f"bare callable, {worker_class}"


_p50: Callable[[Times], float] = lambda times: times.p50  # noqa: E731
_p99: Callable[[Times], float] = lambda times: times.p99  # noqa: E731

if __name__ == "__main__":
    command.run(measure, __doc__)

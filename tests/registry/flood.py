"""A flood of strangers on one kept connection, in a process of its own: `python -m tests.registry.flood PORT COUNT`."""

from __future__ import annotations

import json
import sys
from collections import Counter
from time import perf_counter
from typing import TYPE_CHECKING

from bench.broker_connection import BrokerConnection, post

if TYPE_CHECKING:
    from collections.abc import Mapping


class Asking(BrokerConnection):
    """A broker that takes no for an answer."""

    def ask(self, path: str, fields: Mapping[str, str | int]) -> tuple[int, float]:
        """Ask once and return the status and the seconds it took."""
        request = post(path, fields)
        started = perf_counter()
        self._socket.sendall(request)
        status = int(self._read_answer())
        return status, perf_counter() - started


def stranger(number: int) -> dict[str, str | int]:
    """Return the CONNECT of one of them."""
    return {"username": f"stranger-{number}", "password": f"a stranger's secret {number}", "clientid": f"c{number}"}


def main(port: int, count: int) -> None:
    """Let them all come, and print how often each status was answered and how long it took in all."""
    connection = Asking(port)
    started = perf_counter()
    statuses = Counter(connection.ask("/auth/user", stranger(number))[0] for number in range(count))
    print(json.dumps({"statuses": statuses, "seconds": perf_counter() - started}))  # noqa: T201
    connection.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))

"""Sends CONNECTs of unknown devices on one connection; run as `python -m tests.registry.flood PORT COUNT`."""

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
    """A broker connection that accepts denials."""

    def ask(self, path: str, fields: Mapping[str, str | int]) -> tuple[int, float]:
        """Send one request; return the status and the duration in seconds."""
        request = post(path, fields)
        started = perf_counter()
        self._socket.sendall(request)
        status = int(self._read_answer())
        return status, perf_counter() - started


def unknown_device(number: int) -> dict[str, str | int]:
    """Return the CONNECT of an unknown device."""
    return {
        "username": f"unknown-{number}",
        "password": f"an unknown device's secret {number}",
        "clientid": f"c{number}",
    }


def main(port: int, count: int) -> None:
    """Send all CONNECTs; print the number of answers by status and the total duration."""
    connection = Asking(port)
    started = perf_counter()
    statuses = Counter(connection.ask("/auth/user", unknown_device(number))[0] for number in range(count))
    print(json.dumps({"statuses": statuses, "seconds": perf_counter() - started}))  # noqa: T201
    connection.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))

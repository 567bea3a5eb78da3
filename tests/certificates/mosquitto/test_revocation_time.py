"""The time until a revocation takes effect at the broker: measured, printed and limited."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.certificates.mosquitto.deployment import SYNC_EVERY
from tests.certificates.mosquitto.waiting import TIMEOUT
from tests.devices import V5

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.certificates.mosquitto.certified import CertifiedDevice
    from tests.certificates.mosquitto.site import CertificateSite

RECONNECT_DELAY = 1.0
LONGEST = 10.0


class RevocationTimes(NamedTuple):
    """Seconds from the revocation request to each event."""

    answered: float
    last_message: float
    session_ended: float
    handshake_refused: float

    def __str__(self) -> str:
        names = {
            "the API answers": self.answered,
            "the last message of the device is delivered": self.last_message,
            "the device is disconnected": self.session_ended,
            "the broker refuses its certificate": self.handshake_refused,
        }
        return "\n".join(f"    {seconds:6.3f} s  {name}" for name, seconds in names.items())


def stopwatch() -> Callable[[], float]:
    """Return a function that returns the seconds since this call."""
    began = time.monotonic()
    return lambda: time.monotonic() - began


def measure(site: CertificateSite, bob: CertifiedDevice, carol: CertifiedDevice) -> RevocationTimes:
    """Revoke Bob's certificate while his device publishes and reconnects continuously."""
    clock = stopwatch()
    site.deployment.revoke(site.files_of(bob))
    answered = last_message = clock()
    first: dict[str, float] = {}
    events: dict[str, Callable[[], bool]] = {
        "ended": lambda: not bob.ends.empty(),
        "refused": lambda: not site.is_accepted(bob),
    }
    while len(first) < 2 or clock() < max(first.values()) + 2 * RECONNECT_DELAY:
        assert clock() < TIMEOUT, first
        bob.publish_unacknowledged("line/1")
        first |= {name: clock() for name, has_come in events.items() if name not in first and has_come()}
        last_message = clock() if carol.pending_messages() else last_message
        time.sleep(0.005)
    return RevocationTimes(answered, last_message, first["ended"], first["refused"])


@pytest.mark.slow
def test_revocation_takes_effect_within_ten_seconds(site: CertificateSite, capsys: pytest.CaptureFixture[str]) -> None:
    bob = site.certified("bob", "write line/#", protocol=V5, returns=True)
    carol = site.certified("carol", "read line/#", protocol=V5)
    carol.subscribe("line/#")
    assert bob.publish("line/1") == 0
    times = measure(site, bob, carol)

    with capsys.disabled():
        print(f"\nSince the revocation request, with `crl sync --interval {SYNC_EVERY}`:\n{times}")  # noqa: T201
    assert max(times) < LONGEST
    assert carol.stayed_connected()

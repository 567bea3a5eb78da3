"""How long a revoked device still gets something through: measured, printed, and kept below a bound."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.certificates.mosquitto.plant import SYNC_EVERY
from tests.certificates.mosquitto.waiting import PATIENCE
from tests.devices import V5

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.certificates.mosquitto.certified import CertifiedDevice
    from tests.certificates.mosquitto.site import PlantSite

A_DEVICE_TRIES_AGAIN_AFTER = 1.0
LONGEST = 10.0


class Window(NamedTuple):
    """Seconds from the order to revoke until each thing was first, or last, so."""

    answered: float
    heard_last: float
    session_ended: float
    handshake_refused: float

    def __str__(self) -> str:
        names = {
            "Alice is told that it is revoked": self.answered,
            "the last message of the device's arrives": self.heard_last,
            "its session is ended": self.session_ended,
            "the broker refuses its certificate": self.handshake_refused,
        }
        return "\n".join(f"    {seconds:6.3f} s  {name}" for name, seconds in names.items())


def stopwatch() -> Callable[[], float]:
    """Return what tells the seconds since now."""
    began = time.monotonic()
    return lambda: time.monotonic() - began


def measure(site: PlantSite, bob: CertifiedDevice, carol: CertifiedDevice) -> Window:
    """Let Bob talk without a pause, and come back whenever he is dropped, while Alice revokes his certificate."""
    clock = stopwatch()
    site.plant.revoke(site.papers_of(bob))
    answered = heard_last = clock()
    first: dict[str, float] = {}
    events: dict[str, Callable[[], bool]] = {
        "ended": lambda: not bob.ends.empty(),
        "refused": lambda: not site.gets_in(bob),
    }
    while len(first) < 2 or clock() < max(first.values()) + 2 * A_DEVICE_TRIES_AGAIN_AFTER:
        assert clock() < PATIENCE, first
        bob.publish_unacknowledged("line/1")
        first |= {name: clock() for name, has_come in events.items() if name not in first and has_come()}
        heard_last = clock() if carol.heard() else heard_last
        time.sleep(0.005)
    return Window(answered, heard_last, first["ended"], first["refused"])


@pytest.mark.slow
def test_the_window_between_revocation_and_the_end_of_everything(
    site: PlantSite, capsys: pytest.CaptureFixture[str]
) -> None:
    bob = site.certified("bob", "write line/#", protocol=V5, returns=True)
    carol = site.certified("carol", "read line/#", protocol=V5)
    carol.subscribe("line/#")
    assert bob.publish("line/1") == 0
    window = measure(site, bob, carol)

    with capsys.disabled():
        print(f"\nFrom the order to revoke, with `crl sync --interval {SYNC_EVERY}`:\n{window}")  # noqa: T201
    assert max(window) < LONGEST
    assert carol.stayed_connected()

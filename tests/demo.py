"""`make demo`: the story of a device that nobody knows, with a real service, a real broker and real clients.

Everything runs in a temporary directory and on free ports, needs no rights, and is gone at the end. The clients are
paho's; the broker is Debian's Mosquitto with the tests' plugin, which asks as go-auth does.
"""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tests.broker import BrokerError, Mosquitto, build_plugin, free_port, go_auth_config
from tests.devices import NOT_AUTHORIZED, V5, Device
from tests.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator

PRESS, PASSWORD = "press-7", "chosen at the factory"
SCREEN, SCREENS_PASSWORD = "screen", "known to the hall"
OWN, ANOTHERS = "presses/press-7/state", "presses/press-8/state"
_PATIENCE = 15.0
# Long enough to read what happened; a file needs no pauses.
_PAUSE = 1.5 if sys.stdout.isatty() else 0.0


class StoryError(Exception):
    """What happened is not what the story tells."""


@dataclass(frozen=True)
class Stage:
    """A service, a broker in front of it, and two devices that were not started."""

    service: Service
    broker: Mosquitto
    press: Device
    screen: Device

    def alice(self, *arguments: str, fails: bool = False) -> str:
        """Let Alice type a command, show what it prints, and return that."""
        typed = " ".join(f"'{word}'" if " " in word or "%" in word else word for word in arguments)
        click.secho(f"  alice$ authsvc {typed}", fg="cyan")
        ended = self.service.command(*arguments)
        printed = ended.stdout or ended.stderr
        click.echo("".join(f"    {line.rstrip()}\n" for line in printed.splitlines() if line.strip()), nl=False)
        told(fails == (ended.returncode != 0), f"authsvc {typed} ended with {ended.returncode}")
        return printed


@contextmanager
def set_stage() -> Iterator[Stage]:
    """Start everything, and end it whatever happens: what is begun here is put away even if it never came up."""
    with ExitStack() as running:
        directory = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="authsvc-demo-")))
        plugin = build_plugin(directory)
        service = Service(directory)
        running.callback(service.stop)
        service.start()
        config = go_auth_config(plugin=plugin, service_port=service.broker_port, listener_port=free_port())
        broker = Mosquitto(config, directory)
        running.callback(broker.stop)
        broker.start()
        press = Device(PRESS, PASSWORD, "plc-0815", V5, returns=True)
        screen = Device(SCREEN, SCREENS_PASSWORD, "screen", V5)
        running.callback(press.stop)
        running.callback(screen.stop)
        yield Stage(service, broker, press, screen)


def told(as_it_should: object, what: str) -> None:
    """End the story when something else happened than it tells."""
    if not as_it_should:
        raise StoryError(what)


def act(words: str) -> None:
    """Begin an act."""
    time.sleep(_PAUSE)
    click.secho(f"\n{words}", bold=True)


def good(words: str) -> None:
    click.secho(f"  {words}", fg="green")


def bad(words: str) -> None:
    click.secho(f"  {words}", fg="yellow")


def is_refused(stage: Stage) -> None:
    act(f"A stranger: {PRESS} connects to the broker with a password that nobody told Alice.")
    stage.press.start(stage.broker.port)
    told(stage.press.connack() == NOT_AUTHORIZED, "the stranger was not refused")
    bad(f"{PRESS}: refused, not authorized. It will go on trying.")


def appears(stage: Stage) -> str:
    act("It appears in the client registry.")
    deadline = time.monotonic() + _PATIENCE
    while not (found := waiting(stage)):
        told(time.monotonic() < deadline, "the stranger never appeared")
        time.sleep(0.05)
    stage.alice("registry", "list")
    return found


def waiting(stage: Stage) -> str:
    """Return the id of the stranger's registration, or nothing as long as there is none."""
    listed = json.loads(stage.service.command("registry", "list", "--json").stdout)
    return next((str(one["id"]) for one in listed["items"] if one["username"] == PRESS), "")


def is_granted(stage: Stage, registration: str) -> None:
    act("Alice opens the registry for a minute and grants it topics of its own, nothing else.")
    stage.alice("registry", "unlock", "--seconds", "60")
    stage.alice("registry", "grant", registration, "--permission", "readWrite presses/%u/#")
    deadline = time.monotonic() + _PATIENCE
    while (answer := stage.press.connack()) != 0:
        told(answer == NOT_AUTHORIZED, f"the broker answered {answer}")
        told(time.monotonic() < deadline, "the device never came in")
    good(f"{PRESS}: connected. Nobody touched the device; it tried again, with the same password.")


def publishes(stage: Stage) -> None:
    act("It publishes, and the screen in the hall shows it.")
    stage.service.create_user(SCREEN, SCREENS_PASSWORD, "read presses/#")
    stage.screen.start(stage.broker.port)
    told(stage.screen.connack() == 0, "the screen was refused")
    stage.screen.subscribe("presses/#")
    told(stage.press.publish(OWN, "running") == 0, "the device could not publish")
    topic, payload = stage.screen.received()
    good(f"{SCREEN}: {topic} {payload.decode()}")


def is_refused_elsewhere(stage: Stage) -> None:
    act("It tries to speak for another press.")
    told(stage.press.publish(ANOTHERS, "on fire") == NOT_AUTHORIZED, "the broker took what it must not take")
    told(stage.screen.received_so_far() == [], "the screen was shown what it must not be shown")
    bad(f"{PRESS}: {ANOTHERS} refused, not authorized. The screen shows nothing, and {PRESS} stays connected.")


def is_told_why(stage: Stage) -> None:
    act("Alice asks why.")
    stage.alice("explain", PRESS, "write", ANOTHERS, fails=True)
    stage.alice("explain", PRESS, "write", OWN)


@contextmanager
def ended_as_asked() -> Iterator[None]:
    """Let `kill` end the story as Ctrl-C does: with everything put away."""

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def play() -> None:
    """Tell the story from the beginning to the end."""
    click.secho(
        "A service and a broker come up; the broker asks the service before it lets anybody do anything.", bold=True
    )
    with set_stage() as stage:
        good(f"authsvc on {stage.service.url}, Mosquitto on port {stage.broker.port}")
        is_refused(stage)
        is_granted(stage, appears(stage))
        publishes(stage)
        is_refused_elsewhere(stage)
        is_told_why(stage)
        act("The end: clients, broker and service stop, and what they wrote is removed.")


def main() -> None:
    """Play, and end with status 0 if everything went as told."""
    try:
        with ended_as_asked():
            play()
    except KeyboardInterrupt:
        sys.exit(130)
    except (StoryError, BrokerError, RuntimeError, OSError) as error:
        sys.exit(f"the demo went wrong: {error}")


if __name__ == "__main__":
    main()

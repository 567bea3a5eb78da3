"""`make demo`: an unknown device registers over MQTT, with a real service, broker and clients.

The demo runs in a temporary directory on free ports, needs no privileges and leaves no files. The clients are
paho's; the broker is Debian's Mosquitto with authsvc's plugin.
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

from tests.broker import BrokerError, Mosquitto, authsvc_plugin_config, build_authsvc_plugin, free_port
from tests.devices import NOT_AUTHORIZED, V5, Device
from tests.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator

PRESS, PASSWORD = "press-7", "chosen at the factory"
SCREEN, SCREENS_PASSWORD = "screen", "the screen's secret"
OWN, ANOTHERS = "presses/press-7/state", "presses/press-8/state"
_PATIENCE = 15.0
# Pause for readers at a terminal only.
_PAUSE = 1.5 if sys.stdout.isatty() else 0.0


class DemoError(Exception):
    """A step of the demo had another result than expected."""


@dataclass(frozen=True)
class Environment:
    """A service, a broker that uses it, and two devices that are not started."""

    service: Service
    broker: Mosquitto
    press: Device
    screen: Device

    def alice(self, *arguments: str, fails: bool = False) -> str:
        """Run a command as Alice; print the command and its output, and return the output."""
        typed = " ".join(f"'{word}'" if " " in word or "%" in word else word for word in arguments)
        click.secho(f"  alice$ authsvc {typed}", fg="cyan")
        ended = self.service.command(*arguments)
        printed = ended.stdout or ended.stderr
        click.echo("".join(f"    {line.rstrip()}\n" for line in printed.splitlines() if line.strip()), nl=False)
        check(fails == (ended.returncode != 0), f"authsvc {typed} ended with {ended.returncode}")
        return printed


@contextmanager
def start_all() -> Iterator[Environment]:
    """Start the service, the broker and the devices; stop all that were started, also after an error."""
    with ExitStack() as running:
        directory = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="authsvc-demo-")))
        plugin = build_authsvc_plugin(target_dir=directory)
        service = Service(directory)
        running.callback(service.stop)
        service.start()
        config = authsvc_plugin_config(plugin=plugin, service_port=service.broker_port, listener_port=free_port())
        broker = Mosquitto(config, directory)
        running.callback(broker.stop)
        broker.start()
        press = Device(PRESS, PASSWORD, "plc-0815", V5, returns=True)
        screen = Device(SCREEN, SCREENS_PASSWORD, "screen", V5)
        running.callback(press.stop)
        running.callback(screen.stop)
        yield Environment(service, broker, press, screen)


def check(condition: object, what: str) -> None:
    """Raise `DemoError` if the condition is false."""
    if not condition:
        raise DemoError(what)


def step(words: str) -> None:
    """Print the heading of a step."""
    time.sleep(_PAUSE)
    click.secho(f"\n{words}", bold=True)


def good(words: str) -> None:
    click.secho(f"  {words}", fg="green")


def bad(words: str) -> None:
    click.secho(f"  {words}", fg="yellow")


def is_refused(env: Environment) -> None:
    step(f"Unknown device: {PRESS} connects to the broker with a password that Alice does not know.")
    env.press.start(env.broker.port)
    check(env.press.connack() == NOT_AUTHORIZED, "the unknown device was not refused")
    bad(f"{PRESS}: refused, not authorized. It retries.")


def appears(env: Environment) -> str:
    step("It appears in the client registry.")
    deadline = time.monotonic() + _PATIENCE
    while not (found := pending_registration(env)):
        check(time.monotonic() < deadline, "the registration did not appear")
        time.sleep(0.05)
    env.alice("registry", "list")
    return found


def pending_registration(env: Environment) -> str:
    """Return the id of the device's registration, or an empty string if there is none yet."""
    listed = json.loads(env.service.command("registry", "list", "--json").stdout)
    return next((str(one["id"]) for one in listed["items"] if one["username"] == PRESS), "")


def is_granted(env: Environment, registration: str) -> None:
    step("Alice unlocks the registry for a minute and grants the device its own topics.")
    env.alice("registry", "unlock", "--seconds", "60")
    env.alice("registry", "grant", registration, "--permission", "readWrite presses/%u/#")
    deadline = time.monotonic() + _PATIENCE
    while (answer := env.press.connack()) != 0:
        check(answer == NOT_AUTHORIZED, f"the broker answered {answer}")
        check(time.monotonic() < deadline, "the device was not accepted")
    good(f"{PRESS}: connected. The device retried with the same password.")


def publishes(env: Environment) -> None:
    step("The device publishes, and a screen that subscribes shows it.")
    env.service.create_user(SCREEN, SCREENS_PASSWORD, "read presses/#")
    env.screen.start(env.broker.port)
    check(env.screen.connack() == 0, "the screen was refused")
    env.screen.subscribe("presses/#")
    check(env.press.publish(OWN, "running") == 0, "the device could not publish")
    topic, payload = env.screen.received()
    good(f"{SCREEN}: {topic} {payload.decode()}")


def is_refused_elsewhere(env: Environment) -> None:
    step("The device publishes to a topic of another press.")
    check(env.press.publish(ANOTHERS, "on fire") == NOT_AUTHORIZED, "the broker accepted the message")
    check(env.screen.received_so_far() == [], "the screen received the message")
    bad(f"{PRESS}: {ANOTHERS} refused, not authorized. The screen shows nothing, and {PRESS} stays connected.")


def shows_reasons(env: Environment) -> None:
    step("Alice asks for the reason.")
    env.alice("explain", PRESS, "write", ANOTHERS, fails=True)
    env.alice("explain", PRESS, "write", OWN)


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end the demo like Ctrl-C, so that everything is stopped and removed."""

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run() -> None:
    """Run all steps of the demo."""
    click.secho(
        "A service and a broker start. The broker's plugin asks the service about each login. Then it decides itself.",
        bold=True,
    )
    with start_all() as env:
        good(f"authsvc on {env.service.url}, Mosquitto on port {env.broker.port}")
        is_refused(env)
        is_granted(env, appears(env))
        publishes(env)
        is_refused_elsewhere(env)
        shows_reasons(env)
        step("The end: clients, broker and service stop, and their files are removed.")


def main() -> None:
    """Run the demo; exit with status 0 if all steps succeeded."""
    try:
        with sigterm_as_interrupt():
            run()
    except KeyboardInterrupt:
        sys.exit(130)
    except (DemoError, BrokerError, RuntimeError, OSError) as error:
        sys.exit(f"the demo went wrong: {error}")


if __name__ == "__main__":
    main()

"""A flood of made-up names does not keep a real device out of the registry."""

from __future__ import annotations

import shlex
from collections import deque
from contextlib import nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from authsvc.cli.main import commands
from authsvc.credentials.passwords import PasswordPolicy
from authsvc.pki.authorities import signing_policy
from authsvc.storage.database import session, transaction
from registry import decisions, preauthorizations, records
from registry.mqtt_registration import contact_queue
from registry.mqtt_registration.attempted_names import AttemptedNames
from registry.mqtt_registration.contact_queue import Contact
from registry.mqtt_registration.contacts import ContactWriter
from registry.mqtt_registration.locked_attempts import LockedAttempts
from registry.mqtt_registration.registration import Capacity, MqttRegistration, Outcome
from registry.mqtt_registration.unknown_names import FLOOD_NAMES, UnknownNames, common_prefix, flood
from registry.preauthorizations import NewPreauthorization
from tests.actors import HASHER, OPERATOR
from tests.registry.environment import (
    BOBS_PASSWORD,
    ON_BOTH_DATABASES,
    all_rows,
    expect_success,
    no_writes,
    shift_time,
    with_settings,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask.testing import FlaskClient

    from tests.registry.environment import Environment

MOST = 20
small_list = with_settings(registry_max_locked=MOST)


class Clock:
    """A clock that is set by the test."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def send_flood(
    env: Environment, names: int, first: int = 0, address: str | None = None, mqtt: MqttRegistration | None = None
) -> None:
    """Send one CONNECT for each of many made-up names, and flush the queue."""
    mqtt = mqtt or env.mqtt
    for number in range(first, first + names):
        mqtt.enqueue(None, f"flood-{number}", "a flood's secret", f"bot_{number}", address)
    while mqtt.waiting:
        mqtt.flush()


def mqtt_registration_with(clock: Clock, env: Environment, most: int, hasher: Any = None) -> MqttRegistration:
    """Return a second `MqttRegistration` that uses this clock."""
    services = env.services
    parts = (ContactWriter(), UnknownNames(), AttemptedNames())
    return MqttRegistration(
        hasher or services.hasher,
        services.verifier,
        signing_policy(services.settings),
        Capacity(1000, most),
        *parts,
        clock,
    )


def pending(env: Environment) -> set[str]:
    return {one["username"] for one in env.registrations(status="pending", perPage=1000)}


@small_list
@ON_BOTH_DATABASES
def test_retrying_device_survives_a_flood_of_2000_names(env: Environment) -> None:
    for _ in range(2):
        env.connect("bob", BOBS_PASSWORD)
    before = env.registration()
    for hundred in range(20):
        send_flood(env, 100, hundred * 100)
    assert len(pending(env)) == MOST
    assert env.registration()["id"] == before["id"]
    env.unlock()
    assert not env.connect("carol", "carol's secret")
    env.grant_successfully(env.registration("carol")["id"])
    assert env.connect("carol", "carol's secret")
    env.grant_successfully(before["id"])
    assert env.connect("bob", BOBS_PASSWORD)


@small_list
def test_returning_device_replaces_a_name_with_one_attempt(env: Environment) -> None:
    send_flood(env, 200)
    for _ in range(2):
        env.connect("bob", BOBS_PASSWORD)
    assert env.registration()["attempts"] == 2
    assert len(pending(env)) == MOST
    send_flood(env, 200, 200)
    assert env.registration()["attempts"] == 2


@ON_BOTH_DATABASES
def test_flood_writes_nothing_when_the_list_is_full(env: Environment, clock: Clock) -> None:
    mqtt = mqtt_registration_with(clock, env, MOST)
    send_flood(env, 200, mqtt=mqtt)
    # A full list accepts a few new names, so that a device with one attempt is seen after a flood.
    send_flood(env, 200, 200, mqtt=mqtt)
    recorded = mqtt.counters[Outcome.RECORDED]
    assert recorded > MOST
    with no_writes():
        send_flood(env, 1000, 400, mqtt=mqtt)
    assert mqtt.counters[Outcome.RECORDED] == recorded
    assert mqtt.counters[Outcome.NOT_RECORDED] >= 1000


@ON_BOTH_DATABASES
def test_flood_of_bound_names_writes_no_more_than_any_flood(env: Environment, clock: Clock) -> None:
    wanted = [NewPreauthorization(f"flood-{number}", with_secret=True) for number in range(200)]
    made = preauthorizations.create(OPERATOR, wanted, env.services.settings.password_policy)
    mqtt = mqtt_registration_with(clock, env, MOST)
    send_flood(env, 100, mqtt=mqtt)
    send_flood(env, 100, mqtt=mqtt)
    send_flood(env, 100, mqtt=mqtt)
    before = all_rows()["Registration"]
    send_flood(env, 100, 100, mqtt=mqtt)
    assert all_rows()["Registration"] == before
    assert len(pending(env)) == MOST
    # The device with the secret is still granted.
    secret = made[199].secret
    assert secret
    mqtt.enqueue(None, "flood-199", "a guess", "bot")
    mqtt.enqueue(None, "flood-199", secret, "device")
    mqtt.flush()
    assert mqtt.counters[Outcome.GRANTED] == 1


@with_settings(registry_max_locked=3, registry_max_pending=3)
@ON_BOTH_DATABASES
def test_locked_and_unlocked_registrations_have_separate_limits(env: Environment) -> None:
    send_flood(env, 3)
    env.unlock()
    for name in ("bob", "carol", "dave"):
        env.register_pending(name)
    assert pending(env) == {"flood-0", "flood-1", "flood-2", "bob", "carol", "dave"}


@with_settings(registry_max_pending=3)
@ON_BOTH_DATABASES
def test_new_device_is_recorded_in_an_unlock_window_during_a_flood(env: Environment) -> None:
    env.unlock()
    for _ in range(2):
        env.connect("bob", BOBS_PASSWORD)
    send_flood(env, 30)
    env.register_pending("carol")
    env.register_pending("carol")
    send_flood(env, 30, 30)
    assert {"bob", "carol"} < pending(env)
    assert len(pending(env)) == 3


class SlowHasher:
    """Takes 60 ms of the clock for each hash, and then calls `afterwards`."""

    policy = PasswordPolicy()

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._hash = HASHER.hash("a secret")
        self.afterwards: Callable[[], None] = lambda: None

    def hash(self, _password: str) -> str:
        self._clock.now += 0.06
        self.afterwards()
        return self._hash


def test_devices_that_retry_every_7_seconds_are_recorded_in_a_window_with_200_new_names_a_second(
    env: Environment, clock: Clock
) -> None:
    env.unlock()
    devices = {f"press-{number}" for number in range(5)}
    # The flood has filled the queue before the devices try; each tries 4 times in 30 seconds.
    flood = [(clock.now + number / 200, f"flood-{number}") for number in range(6000)]
    retries = [(clock.now + 6 + start / 2 + 7 * n, name) for start, name in enumerate(devices) for n in range(4)]
    arrivals = deque(sorted(flood + retries))

    def hear_due() -> None:
        while arrivals and arrivals[0][0] <= clock.now:
            mqtt.enqueue(None, arrivals.popleft()[1], "a secret", "c1")

    hasher = SlowHasher(clock)
    hasher.afterwards = hear_due
    mqtt = mqtt_registration_with(clock, env, MOST, hasher)
    missing = devices
    while missing and arrivals:
        clock.now += 0.1
        hear_due()
        mqtt.flush()
        with session():
            missing = devices - records.known_names(devices)
    assert not missing
    assert mqtt.counters[Outcome.QUEUE_FULL] > 1000


def test_attempts_of_evicted_contacts_are_counted(env: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contact_queue, "QUEUE_SIZE", 1)
    env.unlock()
    for name in ("bob", "carol", "dave", "bob"):
        env.mqtt.enqueue(None, name, BOBS_PASSWORD, "c1")
    env.mqtt.enqueue(None, "carol", BOBS_PASSWORD, "c1")
    env.flush()
    # Carol came back too, and replaced Bob.
    assert env.registration("carol")["attempts"] == 2
    env.connect("bob", BOBS_PASSWORD)
    assert env.registration("bob")["attempts"] == 3


@ON_BOTH_DATABASES
def test_one_attempt_per_day_does_not_keep_a_registration(env: Environment) -> None:
    send_flood(env, 1)
    first = env.registration("flood-0")["id"]
    for _ in range(3):
        shift_time(timedelta(hours=20))
        send_flood(env, 1)
        decisions.expire(24)
    assert env.registration("flood-0")["id"] != first


@ON_BOTH_DATABASES
def test_excess_registrations_are_evicted_at_the_next_registration(env: Environment) -> None:
    send_flood(env, 10)
    with transaction():
        assert records.evict_excess(4, while_locked=True) == 7
        assert records.evict_excess(4, while_locked=False) == 0
    assert pending(env) == {"flood-7", "flood-8", "flood-9"}


def contacts(*names: str, attempts: int = 1) -> list[Contact]:
    made = []
    for name in names:
        contact = Contact(name)
        for _ in range(attempts):
            contact.add("a secret", "c1", None)
        made.append(contact)
    return made


def names_of(chosen: list[Contact]) -> list[str]:
    return [contact.username for contact in chosen]


def test_names_with_the_most_attempts_are_recorded_first(env: Environment, clock: Clock) -> None:
    names = AttemptedNames()
    attempts = LockedAttempts(2, names, clock)
    arrived = contacts("flood-1", "flood-2", "flood-3") + contacts("bob", attempts=3)
    assert names_of(attempts.choose(arrived)) == ["bob", "flood-1"]
    assert [names.pop_unrecorded(name) for name in ("bob", "flood-1", "flood-2", "flood-3")] == [0, 0, 1, 1]


def test_full_list_changes_slowly(env: Environment, clock: Clock) -> None:
    send_flood(env, 5)
    attempts = LockedAttempts(5, AttemptedNames(), clock)
    arrived = [f"flood-{number}" for number in range(100, 200)]
    assert len(attempts.choose(contacts(*arrived, attempts=2))) == 10
    assert attempts.choose(contacts(*arrived, attempts=2)) == []
    clock.now += 2
    (first, second) = attempts.choose(contacts(*arrived, attempts=2) + contacts("bob", attempts=9))
    assert first.username == "bob"
    assert second.total == 6


def test_returning_name_is_recognized_during_a_flood(env: Environment, clock: Clock) -> None:
    send_flood(env, 5)
    attempts = LockedAttempts(5, AttemptedNames(), clock)
    for hundred in range(10):
        attempts.choose(contacts(*(f"flood-{number}" for number in range(hundred * 100 + 5, hundred * 100 + 105))))
    attempts.choose(contacts("bob"))
    assert names_of(attempts.choose(contacts("bob"))) == ["bob"]


def reported(env: Environment, names: int, **fields: Any) -> dict[str, Any] | None:
    send_flood(env, names, **fields)
    env.unknown_names.report()
    found: dict[str, Any] | None = expect_success(env.alice.get("/api/client-registry"))["flood"]
    return found


@ON_BOTH_DATABASES
def test_flood_is_shown_with_common_prefixes(env: Environment) -> None:
    assert reported(env, FLOOD_NAMES - 1) is None
    found = reported(env, 2 * FLOOD_NAMES, first=1000, address="203.0.113.5")
    assert found
    assert found["names"] >= 2 * FLOOD_NAMES
    assert (found["usernamePattern"], found["clientIdPrefix"]) == ("flood-*", "bot_")
    assert found["addresses"] == [{"address": "203.0.113.5", "attempts": 2 * FLOOD_NAMES}]
    shift_time(timedelta(seconds=16))
    assert expect_success(env.alice.get("/api/client-registry"))["flood"] is None


@pytest.mark.parametrize(
    ("name", "address", "advised"),
    [
        ("flood-{}", "203.0.113.5", "--username-pattern 'flood-*' --max-attempts 1"),
        ("{}-flood", "203.0.113.5", "--address 203.0.113.5 --max-attempts 1"),
        ("{}-flood", None, None),
    ],
)
def test_suggested_filter_excludes_other_new_devices(
    env: Environment,
    browser: FlaskClient,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    address: str | None,
    advised: str | None,
) -> None:
    for number in range(FLOOD_NAMES):
        env.unknown_names.count(name.format(f"{number * 7919:x}"[::-1]), address=address)
    env.unknown_names.report()
    monkeypatch.setattr("authsvc.cli.terminal.opened", nullcontext)
    said = CliRunner().invoke(commands, ["registry", "status"]).output
    assert f"{FLOOD_NAMES} unknown usernames per minute" in said
    assert said.partition("authsvc registry delete ")[2].strip() == (advised or "")
    assert ("the registrations of this flood" in browser.get("/admin/registry").text) == bool(advised)


@ON_BOTH_DATABASES
def test_suggested_filter_excludes_names_from_before_the_unlock_window(env: Environment, browser: FlaskClient) -> None:
    send_flood(env, 1, first=1000)
    shift_time(timedelta(seconds=10))
    env.unlock()
    reported(env, FLOOD_NAMES)
    found = flood()
    assert found
    assert found.suggested_filter
    assert f"filter.after={found.suggested_filter['after']}" in browser.get("/admin/registry").text
    answer = env.alice.post("/api/client-registry/registrations/delete", {"filter": found.suggested_filter})
    assert expect_success(answer)["count"] == FLOOD_NAMES
    assert pending(env) == {"flood-1000"}


@pytest.mark.parametrize("unlocked", [True, False])
def test_suggested_command_deletes_the_names_of_the_flood(
    env: Environment, monkeypatch: pytest.MonkeyPatch, unlocked: bool
) -> None:
    if unlocked:
        env.unlock()
    reported(env, FLOOD_NAMES)
    monkeypatch.setattr("authsvc.cli.terminal.opened", nullcontext)
    said = CliRunner().invoke(commands, ["registry", "status"]).output
    command = shlex.split(said.partition("to delete them: authsvc ")[2])
    assert ("--after" in command) == unlocked
    assert CliRunner().invoke(commands, command).output == f"{FLOOD_NAMES} deleted\n"


@with_settings(registry_address_attempts_per_minute=FLOOD_NAMES)
def test_flood_over_rest_is_shown_with_its_address(env: Environment) -> None:
    for number in range(2 * FLOOD_NAMES):
        env.register(f"made-up-{number}", address="203.0.113.5")
    env.unknown_names.report()
    found = expect_success(env.alice.get("/api/client-registry"))["flood"]
    assert found["names"] == FLOOD_NAMES
    assert found["addresses"] == [{"address": "203.0.113.5", "attempts": 2 * FLOOD_NAMES}]


@ON_BOTH_DATABASES
def test_reports_of_all_processes_are_added_up(env: Environment) -> None:
    first, second = UnknownNames(), UnknownNames()
    for number in range(40):
        first.count(f"flood-{number}", client_id="bot", address="203.0.113.5")
        second.count(f"send_flood-{number}", attempts=2, address="2001:db8::5")
    first.report()
    assert flood() is None
    second.report()
    found = flood()
    assert found
    assert (found.attempts, found.names) == (120, 80)
    assert found.addresses == (("2001:db8::/64", 80), ("203.0.113.5", 40))


def test_report_is_deleted_after_the_flood(env: Environment, clock: Clock) -> None:
    names = UnknownNames(clock)
    names.report()
    before = all_rows()
    for number in range(FLOOD_NAMES):
        names.count(f"flood-{number}")
    names.report()
    assert flood()
    clock.now += 61
    names.report()
    assert flood() is None
    assert all_rows() == before


@pytest.mark.parametrize(
    ("texts", "prefix"),
    [
        (["press-1", "press-2", "press-3"], "press-"),
        (["press-1", "press-2", "press-3", "bob"], "press-"),
        (["press-1", "bob", "carol"], None),
        (["ab1", "ab2", "ab3"], None),
        (["press-1"], None),
        (["press", "press"], "press"),
        (["", "", "press-1", "press-2"], "press-"),
        ([], None),
    ],
)
def test_common_prefix_of_most_names_is_found(texts: list[str], prefix: str | None) -> None:
    assert common_prefix(texts) == prefix

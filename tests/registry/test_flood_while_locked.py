"""A flood of made-up names, locked or unlocked, neither fills the registry nor keeps a real device out of it."""

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
from registry.mqtt_registration.contacts import Contacts
from registry.mqtt_registration.locked_attempts import LockedAttempts
from registry.mqtt_registration.registration import Capacity, MqttRegistration, Outcome
from registry.mqtt_registration.unknown_names import FLOOD_NAMES, UnknownNames, common_prefix, flood
from registry.preauthorizations import NewPreauthorization
from tests.actors import HASHER, OPERATOR
from tests.registry.environment import (
    BOBS_PASSWORD,
    ON_BOTH_DATABASES,
    done,
    everything,
    no_writes,
    time_passes,
    with_settings,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask.testing import FlaskClient

    from tests.registry.environment import Place

MOST = 20
small_list = with_settings(registry_max_locked=MOST)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def storm(
    place: Place, names: int, first: int = 0, address: str | None = None, intake: MqttRegistration | None = None
) -> None:
    """Let so many made-up names try to connect once each, and write down what is to be written."""
    intake = intake or place.intake
    for number in range(first, first + names):
        intake.enqueue(None, f"flood-{number}", "a flood's secret", f"bot_{number}", address)
    while intake.waiting:
        intake.flush()


def intake_by(clock: Clock, place: Place, most: int, hasher: Any = None) -> MqttRegistration:
    """Return an intake beside the one of the service, for which time passes by this clock."""
    services = place.services
    parts = (Contacts(), UnknownNames(), AttemptedNames())
    return MqttRegistration(
        hasher or services.hasher,
        services.verifier,
        signing_policy(services.settings),
        Capacity(1000, most),
        *parts,
        clock,
    )


def pending(place: Place) -> set[str]:
    return {one["username"] for one in place.registrations(status="pending", perPage=1000)}


@small_list
@ON_BOTH_DATABASES
def test_a_device_that_retries_stays_in_a_flood_of_2000_names_and_is_granted(place: Place) -> None:
    for _ in range(2):
        place.connects("bob", BOBS_PASSWORD)
    before = place.registration()
    for hundred in range(20):
        storm(place, 100, hundred * 100)
    assert len(pending(place)) == MOST
    assert place.registration()["id"] == before["id"]
    place.unlock()
    assert not place.connects("carol", "carol's secret")
    place.granted(place.registration("carol")["id"])
    assert place.connects("carol", "carol's secret")
    place.granted(before["id"])
    assert place.connects("bob", BOBS_PASSWORD)


@small_list
def test_a_device_that_comes_back_takes_the_place_of_a_name_that_did_not(place: Place) -> None:
    storm(place, 200)
    for _ in range(2):
        place.connects("bob", BOBS_PASSWORD)
    assert place.registration()["attempts"] == 2
    assert len(pending(place)) == MOST
    storm(place, 200, 200)
    assert place.registration()["attempts"] == 2


@ON_BOTH_DATABASES
def test_a_flood_writes_nothing_once_the_list_is_full(place: Place, clock: Clock) -> None:
    intake = intake_by(clock, place, MOST)
    storm(place, 200, intake=intake)
    # A few newcomers are let into a full list, so that a device that tries once can be seen after a flood.
    storm(place, 200, 200, intake=intake)
    recorded = intake.counters[Outcome.RECORDED]
    assert recorded > MOST
    with no_writes():
        storm(place, 1000, 400, intake=intake)
    assert intake.counters[Outcome.RECORDED] == recorded
    assert intake.counters[Outcome.NOT_RECORDED] >= 1000


@ON_BOTH_DATABASES
def test_a_flood_of_names_that_are_preauthorized_for_the_holder_of_a_secret_writes_no_more(
    place: Place, clock: Clock
) -> None:
    wanted = [NewPreauthorization(f"flood-{number}", with_secret=True) for number in range(200)]
    made = preauthorizations.create(OPERATOR, wanted, place.services.settings.password_policy)
    intake = intake_by(clock, place, MOST)
    storm(place, 100, intake=intake)
    storm(place, 100, intake=intake)
    storm(place, 100, intake=intake)
    before = everything()["Registration"]
    storm(place, 100, 100, intake=intake)
    assert everything()["Registration"] == before
    assert len(pending(place)) == MOST
    # The holder of the secret is let in all the same.
    secret = made[199].secret
    assert secret
    intake.enqueue(None, "flood-199", "a guess", "bot")
    intake.enqueue(None, "flood-199", secret, "device")
    intake.flush()
    assert intake.counters[Outcome.GRANTED] == 1


@with_settings(registry_max_locked=3, registry_max_pending=3)
@ON_BOTH_DATABASES
def test_attempts_recorded_while_locked_take_no_room_from_those_recorded_while_unlocked(place: Place) -> None:
    storm(place, 3)
    place.unlock()
    for name in ("bob", "carol", "dave"):
        place.asks(name)
    assert pending(place) == {"flood-0", "flood-1", "flood-2", "bob", "carol", "dave"}


@with_settings(registry_max_pending=3)
@ON_BOTH_DATABASES
def test_the_open_window_has_room_for_a_newcomer_in_a_flood(place: Place) -> None:
    place.unlock()
    for _ in range(2):
        place.connects("bob", BOBS_PASSWORD)
    storm(place, 30)
    place.asks("carol")
    place.asks("carol")
    storm(place, 30, 30)
    assert {"bob", "carol"} < pending(place)
    assert len(pending(place)) == 3


class SlowHasher:
    """Takes 60 ms by the clock for each hash, and then calls `afterwards`."""

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
    place: Place, clock: Clock
) -> None:
    place.unlock()
    devices = {f"press-{number}" for number in range(5)}
    # The flood has filled the queue when the devices come; they come 4 times in 30 seconds.
    flood = [(clock.now + number / 200, f"flood-{number}") for number in range(6000)]
    retries = [(clock.now + 6 + start / 2 + 7 * n, name) for start, name in enumerate(devices) for n in range(4)]
    arrivals = deque(sorted(flood + retries))

    def hear_due() -> None:
        while arrivals and arrivals[0][0] <= clock.now:
            intake.enqueue(None, arrivals.popleft()[1], "a secret", "c1")

    hasher = SlowHasher(clock)
    hasher.afterwards = hear_due
    intake = intake_by(clock, place, MOST, hasher)
    missing = devices
    while missing and arrivals:
        clock.now += 0.1
        hear_due()
        intake.flush()
        with session():
            missing = devices - records.known_names(devices)
    assert not missing
    assert intake.counters[Outcome.QUEUE_FULL] > 1000


def test_attempts_that_found_no_room_in_the_queue_are_counted(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contact_queue, "QUEUE_SIZE", 1)
    place.unlock()
    for name in ("bob", "carol", "dave", "bob"):
        place.intake.enqueue(None, name, BOBS_PASSWORD, "c1")
    place.intake.enqueue(None, "carol", BOBS_PASSWORD, "c1")
    place.writes_down()
    # Carol came back as well, and took Bob's place.
    assert place.registration("carol")["attempts"] == 2
    place.connects("bob", BOBS_PASSWORD)
    assert place.registration("bob")["attempts"] == 3


@ON_BOTH_DATABASES
def test_somebody_who_tries_once_a_day_does_not_keep_a_registration(place: Place) -> None:
    storm(place, 1)
    first = place.registration("flood-0")["id"]
    for _ in range(3):
        time_passes(timedelta(hours=20))
        storm(place, 1)
        decisions.expire(24)
    assert place.registration("flood-0")["id"] != first


@ON_BOTH_DATABASES
def test_a_list_that_is_longer_than_its_limit_is_cut_down_at_the_next_registration(place: Place) -> None:
    storm(place, 10)
    with transaction():
        assert records.make_room(4, while_locked=True) == 7
        assert records.make_room(4, while_locked=False) == 0
    assert pending(place) == {"flood-7", "flood-8", "flood-9"}


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


def test_those_with_the_most_attempts_are_chosen_first(place: Place, clock: Clock) -> None:
    names = AttemptedNames()
    attempts = LockedAttempts(2, names, clock)
    arrived = contacts("flood-1", "flood-2", "flood-3") + contacts("bob", attempts=3)
    assert names_of(attempts.choose(arrived)) == ["bob", "flood-1"]
    assert [names.take_unrecorded(name) for name in ("bob", "flood-1", "flood-2", "flood-3")] == [0, 0, 1, 1]


def test_a_full_list_changes_slowly_however_many_names_come_back(place: Place, clock: Clock) -> None:
    storm(place, 5)
    attempts = LockedAttempts(5, AttemptedNames(), clock)
    arrived = [f"flood-{number}" for number in range(100, 200)]
    assert len(attempts.choose(contacts(*arrived, attempts=2))) == 10
    assert attempts.choose(contacts(*arrived, attempts=2)) == []
    clock.now += 2
    (first, second) = attempts.choose(contacts(*arrived, attempts=2) + contacts("bob", attempts=9))
    assert first.username == "bob"
    assert second.total == 6


def test_a_name_is_known_again_when_it_comes_back_in_the_middle_of_a_flood(place: Place, clock: Clock) -> None:
    storm(place, 5)
    attempts = LockedAttempts(5, AttemptedNames(), clock)
    for hundred in range(10):
        attempts.choose(contacts(*(f"flood-{number}" for number in range(hundred * 100 + 5, hundred * 100 + 105))))
    attempts.choose(contacts("bob"))
    assert names_of(attempts.choose(contacts("bob"))) == ["bob"]


def reported(place: Place, names: int, **fields: Any) -> dict[str, Any] | None:
    storm(place, names, **fields)
    place.unknown_names.report()
    found: dict[str, Any] | None = done(place.alice.get("/api/client-registry"))["flood"]
    return found


@ON_BOTH_DATABASES
def test_a_flood_is_shown_with_what_its_names_have_in_common(place: Place) -> None:
    assert reported(place, FLOOD_NAMES - 1) is None
    found = reported(place, 2 * FLOOD_NAMES, first=1000, address="203.0.113.5")
    assert found
    assert found["names"] >= 2 * FLOOD_NAMES
    assert (found["usernamePattern"], found["clientIdPrefix"]) == ("flood-*", "bot_")
    assert found["addresses"] == [{"address": "203.0.113.5", "attempts": 2 * FLOOD_NAMES}]
    time_passes(timedelta(seconds=16))
    assert done(place.alice.get("/api/client-registry"))["flood"] is None


@pytest.mark.parametrize(
    ("name", "address", "advised"),
    [
        ("flood-{}", "203.0.113.5", "--username-pattern 'flood-*' --max-attempts 1"),
        ("{}-flood", "203.0.113.5", "--address 203.0.113.5 --max-attempts 1"),
        ("{}-flood", None, None),
    ],
)
def test_the_command_line_and_the_page_suggest_only_a_filter_that_spares_other_newcomers(
    place: Place,
    browser: FlaskClient,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    address: str | None,
    advised: str | None,
) -> None:
    for number in range(FLOOD_NAMES):
        place.unknown_names.count(name.format(f"{number * 7919:x}"[::-1]), address=address)
    place.unknown_names.report()
    monkeypatch.setattr("registry.cli.registry.opened", nullcontext)
    said = CliRunner().invoke(commands, ["registry", "status"]).output
    assert f"{FLOOD_NAMES} unknown usernames a minute" in said
    assert said.partition("authsvc registry delete ")[2].strip() == (advised or "")
    assert ("the names of this flood" in browser.get("/admin/registry").text) == bool(advised)


@ON_BOTH_DATABASES
def test_in_an_open_window_the_suggested_filter_spares_names_that_came_earlier(
    place: Place, browser: FlaskClient
) -> None:
    storm(place, 1, first=1000)
    time_passes(timedelta(seconds=10))
    place.unlock()
    reported(place, FLOOD_NAMES)
    found = flood()
    assert found
    assert found.suggested_filter
    assert f"filter.after={found.suggested_filter['after']}" in browser.get("/admin/registry").text
    answer = place.alice.post("/api/client-registry/registrations/delete", {"filter": found.suggested_filter})
    assert done(answer)["count"] == FLOOD_NAMES
    assert pending(place) == {"flood-1000"}


@pytest.mark.parametrize("unlocked", [True, False])
def test_the_suggested_command_deletes_the_names_of_the_flood(
    place: Place, monkeypatch: pytest.MonkeyPatch, unlocked: bool
) -> None:
    if unlocked:
        place.unlock()
    reported(place, FLOOD_NAMES)
    monkeypatch.setattr("registry.cli.opened", nullcontext)
    said = CliRunner().invoke(commands, ["registry", "status"]).output
    command = shlex.split(said.partition("to forget them: authsvc ")[2])
    assert ("--after" in command) == unlocked
    assert CliRunner().invoke(commands, command).output == f"{FLOOD_NAMES} forgotten\n"


@with_settings(registry_address_attempts_per_minute=FLOOD_NAMES)
def test_a_flood_over_rest_is_shown_with_its_address(place: Place) -> None:
    for number in range(2 * FLOOD_NAMES):
        place.registers(f"made-up-{number}", address="203.0.113.5")
    place.unknown_names.report()
    found = done(place.alice.get("/api/client-registry"))["flood"]
    assert found["names"] == FLOOD_NAMES
    assert found["addresses"] == [{"address": "203.0.113.5", "attempts": 2 * FLOOD_NAMES}]


@ON_BOTH_DATABASES
def test_the_reports_of_all_processes_are_added_up(place: Place) -> None:
    first, second = UnknownNames(), UnknownNames()
    for number in range(40):
        first.count(f"flood-{number}", client_id="bot", address="203.0.113.5")
        second.count(f"storm-{number}", attempts=2, address="2001:db8::5")
    first.report()
    assert flood() is None
    second.report()
    found = flood()
    assert found
    assert (found.attempts, found.names) == (120, 80)
    assert found.addresses == (("2001:db8::/64", 80), ("203.0.113.5", 40))


def test_the_report_is_taken_back_when_the_flood_is_over(place: Place, clock: Clock) -> None:
    names = UnknownNames(clock)
    names.report()
    before = everything()
    for number in range(FLOOD_NAMES):
        names.count(f"flood-{number}")
    names.report()
    assert flood()
    clock.now += 61
    names.report()
    assert flood() is None
    assert everything() == before


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
def test_the_prefix_that_most_names_share_is_found(texts: list[str], prefix: str | None) -> None:
    assert common_prefix(texts) == prefix

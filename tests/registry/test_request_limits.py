"""Requests to register are limited by name and address in memory, and never for the holder of a registration."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from authsvc.errors import TooMany
from registry import limits
from registry.limits import COMPARED_PER_SECOND, BeyondLimit, Holder, Limits, PerMinute, RequestLimits, TokenBucket
from tests.http.callers import problem_of
from tests.registry.environment import BOBS_PASSWORD, ON_BOTH_DATABASES, Place, no_writes, stored, with_settings
from tests.registry.signing import new_key, signing_request
from tests.registry.test_hostile_requests import enrols

if TYPE_CHECKING:
    from authsvc.settings import Settings

HOME, ELSEWHERE = "192.0.2.1", "198.51.100.7"
WRONG = "somebody else's secret"
strict = with_settings(registry_attempts_per_minute=30)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def is_counted(requests: RequestLimits, username: str, address: str = HOME, password: str = WRONG) -> int:
    """Send one request and return how many seconds to wait, 0 if it is let pass."""
    try:
        requests.count(username, address, requests.proof_of(username, password, None))
    except TooMany as error:
        return error.retry_after
    return 0


@strict
@ON_BOTH_DATABASES
@pytest.mark.parametrize("attacker", [HOME, ELSEWHERE])
def test_a_device_is_answered_while_others_use_up_the_limits_of_its_name(place: Place, attacker: str) -> None:
    place.unlock()
    registration = place.registers(address=HOME).get_json()
    answers = [place.registers(password=WRONG, address=attacker).status_code for _ in range(40)]
    # The first request of the device itself was counted for its own address.
    others = 29 if attacker == HOME else 30
    assert answers == [409] * others + [429] * (40 - others)
    for _ in range(40):
        answer = place.registers(address=HOME)
        assert answer.status_code == 202
        assert answer.get_json() == registration
    place.granted(registration["id"], acceptConflicts=True)
    assert place.registers(password=WRONG, address=attacker).status_code == 429
    assert place.registers(address=HOME).status_code == 201


@strict
def test_a_device_with_a_key_alone_is_answered_too(place: Place) -> None:
    place.unlock()
    key = new_key()
    assert place.registers(csr=signing_request("bob", key)).status_code == 202
    answers = {place.registers(csr=signing_request("bob")).status_code for _ in range(40)}
    assert answers == {409, 429}
    assert place.registers(csr=signing_request("bob", key)).status_code == 202


@strict
def test_a_device_whose_holder_is_not_known_yet_is_answered_while_others_guess_from_elsewhere(place: Place) -> None:
    for _ in range(40):
        place.registers(password=WRONG, address=ELSEWHERE)
    place.unlock()
    assert place.registers(address=HOME).status_code == 202


@strict
def test_a_denied_device_is_limited_like_everybody_else(place: Place) -> None:
    registration = place.in_status("denied")
    answers = [place.registers().status_code for _ in range(40)]
    assert answers == [403] * 30 + [429] * 10
    place.alice.delete(f"/api/client-registry/registrations/{registration}")


@strict
@ON_BOTH_DATABASES
def test_made_up_names_write_nothing_while_the_registry_is_locked(place: Place) -> None:
    with no_writes():
        answers = [place.registers(f"made-up-{number}").status_code for number in range(200)]
    assert answers == [423] * 120 + [429] * 80


@with_settings(registry_names_per_minute=50)
def test_beyond_a_number_of_names_no_answer_tells_which_of_them_exist(place: Place) -> None:
    place.alice.creates_user("dora", "dora's secret")
    for number in range(50):
        assert place.registers(f"made-up-{number}", address=f"198.51.100.{number}").status_code == 423
    answers = [place.registers(name, address=ELSEWHERE) for name in ("alice", "dora", "nobody-1")]
    problems = [problem_of(answer, 429, "too-many-attempts") for answer in answers]
    assert problems[0] == problems[1] == problems[2]
    assert 1 <= int(answers[0].headers["Retry-After"]) <= 60


@with_settings(registry_address_attempts_per_minute=50)
def test_over_est_names_are_limited_like_over_rest(place: Place) -> None:
    answers = [enrols(place, name).status_code for name in ("alice", *(f"made-up-{number}" for number in range(60)))]
    assert answers == [401] + [423] * 49 + [429] * 11
    assert enrols(place, "charlie").status_code == 429


@strict
def test_conflicts_are_counted_though_few_of_them_are_written_at_once(place: Place) -> None:
    place.unlock()
    place.asks()
    for number in range(90):
        place.registers(password=WRONG, address=f"198.51.100.{number % 3}")
    row = stored()
    assert row
    assert row.conflicts == 90


@strict
def test_the_address_of_a_registration_is_shown(place: Place) -> None:
    place.unlock()
    place.registers(address="::ffff:192.0.2.9")
    assert place.registration()["address"] == "192.0.2.9"


def test_each_name_has_a_limit_per_address(clock: Clock) -> None:
    requests = RequestLimits(Limits(3, 100, 100), clock)
    assert [is_counted(requests, "bob") for _ in range(5)] == [0, 0, 0, 60, 60]
    assert is_counted(requests, "bob", ELSEWHERE) == 0
    assert is_counted(requests, "carol") == 0
    clock.now += 59.5
    assert is_counted(requests, "bob") == 1
    clock.now += 0.5
    assert is_counted(requests, "bob") == 0


def test_each_address_has_a_limit_for_all_names(clock: Clock) -> None:
    requests = RequestLimits(Limits(3, 4, 100), clock)
    assert [is_counted(requests, f"bob-{number}") for number in range(6)] == [0, 0, 0, 0, 60, 60]
    assert is_counted(requests, "bob-9", ELSEWHERE) == 0


def test_one_device_that_repeats_itself_leaves_its_neighbours_their_share(clock: Clock) -> None:
    requests = RequestLimits(Limits(3, 10, 100), clock)
    for _ in range(50):
        is_counted(requests, "bob")
    assert [is_counted(requests, f"carol-{number}") for number in range(8)] == [0] * 7 + [60]


def test_all_addresses_together_are_told_of_so_many_names(clock: Clock) -> None:
    requests = RequestLimits(Limits(10, 10, 3), clock)
    answers = [is_counted(requests, f"bob-{number}", f"198.51.100.{number}") for number in range(5)]
    assert answers == [0, 0, 0, 60, 60]
    assert is_counted(requests, "bob-0", "203.0.113.1") == 0
    clock.now += 60
    assert is_counted(requests, "bob-4") == 0


def test_a_proof_is_of_the_name_and_everything_that_was_sent_with_it(clock: Clock) -> None:
    requests = RequestLimits(Limits(1, 1, 1), clock)
    sent = [("bob", BOBS_PASSWORD, None), ("bob", None, BOBS_PASSWORD), ("carol", BOBS_PASSWORD, None)]
    proofs = {requests.proof_of(*one) for one in sent}
    assert len(proofs) == 3
    assert RequestLimits(Limits(1, 1, 1), clock).proof_of(*sent[0]) not in proofs


def test_what_is_remembered_is_bounded(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = PerMinute(1, max_keys=10, clock=clock)
    for number in range(100):
        counts.add(number)
    assert len(counts) == 10
    monkeypatch.setattr(limits, "MAX_PROOFS", 2)
    requests = RequestLimits(Limits(1, 1, 1), clock)
    proofs = [requests.proof_of("bob", f"secret {number}", None) for number in range(3)]
    for proof in proofs:
        requests.remember(proof)
    requests.count("bob", HOME, proofs[0])
    with pytest.raises(TooMany):
        requests.count("bob", HOME, proofs[0])
    requests.count("bob", HOME, proofs[1])
    requests.forget(proofs[1])
    with pytest.raises(TooMany):
        requests.count("bob", HOME, proofs[1])


def test_a_bucket_allows_a_burst_and_then_its_rate(clock: Clock) -> None:
    bucket = TokenBucket(2, 3, clock)
    assert [bucket.take() for _ in range(5)] == [True] * 3 + [False] * 2
    clock.now += 1
    assert [bucket.take() for _ in range(3)] == [True] * 2 + [False]
    clock.now += 100
    assert [bucket.take() for _ in range(5)] == [True] * 3 + [False] * 2


@with_settings(registry_names_per_minute=20)
def test_a_refused_name_that_may_be_a_users_is_not_reported_as_unknown(place: Place) -> None:
    for number in range(20):
        place.registers(f"made-up-{number}", address="203.0.113.5")
    for number in range(60):
        place.alice.creates_user(f"plant-{number}", BOBS_PASSWORD)
        place.registers(f"plant-{number}", password=WRONG, address="203.0.113.5")
    found = place.unknown_names.summary()
    assert (found.attempts, found.names, found.name_prefix) == (80, 20, "made-up-")
    assert found.addresses == {"203.0.113.5": 80}


@with_settings(registry_names_per_minute=20)
@ON_BOTH_DATABASES
def test_holders_are_answered_after_a_restart_in_a_flood_of_names(place: Place, settings: Settings) -> None:
    place.unlock()
    place.asks("bob")
    place.alice.creates_user("dora", BOBS_PASSWORD, grantTypes=["password", "certificate"])
    place.lock()
    restarted = Place.opened(settings)
    for number in range(20):
        assert restarted.registers(f"made-up-{number}", address=f"198.51.100.{number}").status_code == 423
    for wrong in (restarted.registers("bob", password=WRONG), enrols(restarted, "alice"), enrols(restarted, "nobody")):
        assert wrong.status_code == 429
    assert restarted.registers("bob").status_code == 202
    assert enrols(restarted, "dora").status_code == 200
    restarted.close()


def test_few_requests_a_second_are_compared_beyond_the_limits(clock: Clock) -> None:
    requests = RequestLimits(Limits(1, 100, 1), clock)

    def errors(names: str, holder: Holder = Holder.REGISTRATION) -> list[type[TooMany]]:
        found: list[type[TooMany]] = []
        for name in names:
            try:
                requests.count(name, HOME, requests.proof_of(name, WRONG, None), holder)
            except TooMany as error:
                found.append(type(error))
        return found

    assert errors("a") == []
    assert errors("bcdefghi") == [BeyondLimit] * COMPARED_PER_SECOND + [TooMany] * (8 - COMPARED_PER_SECOND)
    # Made-up names use up none of what the users' names have, and no guess at one name from one address is compared.
    assert errors("jk", Holder.USER) == [BeyondLimit] * 2
    clock.now += 1
    assert errors("bl") == [TooMany, BeyondLimit]

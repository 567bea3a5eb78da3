"""Rate limits on registration requests, which exempt verified clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from authsvc.errors import TooMany
from registry import limits
from registry.limits import (
    COMPARED_PER_SECOND,
    CheckedAgainst,
    LimitExceeded,
    Limits,
    PerMinute,
    RequestLimits,
    TokenBucket,
)
from tests.http.callers import problem_of
from tests.registry.environment import (
    BOBS_PASSWORD,
    ON_BOTH_DATABASES,
    Environment,
    no_writes,
    stored_registration,
    with_settings,
)
from tests.registry.signing import new_key, signing_request
from tests.registry.test_hostile_requests import enrols

if TYPE_CHECKING:
    from authsvc.settings import Settings

HOME, ELSEWHERE = "192.0.2.1", "198.51.100.7"
WRONG = "somebody else's secret"
strict = with_settings(registry_attempts_per_minute=30)


class Clock:
    """A clock that is set by the test."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def is_counted(requests: RequestLimits, username: str, address: str = HOME, password: str = WRONG) -> int:
    """Count one request; return the seconds to wait, 0 if it is within the limits."""
    try:
        requests.count(username, address, requests.digest_of(username, password, None))
    except TooMany as error:
        return error.retry_after
    return 0


@strict
@ON_BOTH_DATABASES
@pytest.mark.parametrize("attacker", [HOME, ELSEWHERE])
def test_verified_device_is_answered_beyond_the_limits_of_its_name(env: Environment, attacker: str) -> None:
    env.unlock()
    registration = env.register(address=HOME).get_json()
    answers = [env.register(password=WRONG, address=attacker).status_code for _ in range(40)]
    # The device's own first request was counted for its address.
    others = 29 if attacker == HOME else 30
    assert answers == [409] * others + [429] * (40 - others)
    for _ in range(40):
        answer = env.register(address=HOME)
        assert answer.status_code == 202
        assert answer.get_json() == registration
    env.grant_successfully(registration["id"], acceptConflicts=True)
    assert env.register(password=WRONG, address=attacker).status_code == 429
    assert env.register(address=HOME).status_code == 201


@strict
def test_verified_device_with_a_key_is_answered_beyond_the_limits(env: Environment) -> None:
    env.unlock()
    key = new_key()
    assert env.register(csr=signing_request("bob", key)).status_code == 202
    answers = {env.register(csr=signing_request("bob")).status_code for _ in range(40)}
    assert answers == {409, 429}
    assert env.register(csr=signing_request("bob", key)).status_code == 202


@strict
def test_unverified_device_is_answered_while_others_guess_from_other_networks(env: Environment) -> None:
    for _ in range(40):
        env.register(password=WRONG, address=ELSEWHERE)
    env.unlock()
    assert env.register(address=HOME).status_code == 202


@strict
def test_denied_device_is_limited(env: Environment) -> None:
    registration = env.create_in_status("denied")
    answers = [env.register().status_code for _ in range(40)]
    assert answers == [403] * 30 + [429] * 10
    env.alice.delete(f"/api/client-registry/registrations/{registration}")


@strict
@ON_BOTH_DATABASES
def test_made_up_names_write_nothing_while_the_registry_is_locked(env: Environment) -> None:
    with no_writes():
        answers = [env.register(f"made-up-{number}").status_code for number in range(200)]
    assert answers == [423] * 120 + [429] * 80


@with_settings(registry_names_per_minute=50)
def test_answers_beyond_the_name_limit_do_not_reveal_names(env: Environment) -> None:
    env.alice.creates_user("dora", "dora's secret")
    for number in range(50):
        assert env.register(f"made-up-{number}", address=f"198.51.100.{number}").status_code == 423
    answers = [env.register(name, address=ELSEWHERE) for name in ("alice", "dora", "nobody-1")]
    problems = [problem_of(answer, 429, "too-many-attempts") for answer in answers]
    assert problems[0] == problems[1] == problems[2]
    assert 1 <= int(answers[0].headers["Retry-After"]) <= 60


@with_settings(registry_address_attempts_per_minute=50)
def test_est_requests_are_limited_like_rest_requests(env: Environment) -> None:
    answers = [enrols(env, name).status_code for name in ("alice", *(f"made-up-{number}" for number in range(60)))]
    assert answers == [401] + [423] * 49 + [429] * 11
    assert enrols(env, "charlie").status_code == 429


@strict
def test_conflicts_are_counted_beyond_the_write_rate(env: Environment) -> None:
    env.unlock()
    env.register_pending()
    for number in range(90):
        env.register(password=WRONG, address=f"198.51.100.{number % 3}")
    row = stored_registration()
    assert row
    assert row.conflicts == 90


@strict
def test_the_address_of_a_registration_is_shown(env: Environment) -> None:
    env.unlock()
    env.register(address="::ffff:192.0.2.9")
    assert env.registration()["address"] == "192.0.2.9"


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


def test_repeating_device_does_not_use_up_the_limit_of_its_network(clock: Clock) -> None:
    requests = RequestLimits(Limits(3, 10, 100), clock)
    for _ in range(50):
        is_counted(requests, "bob")
    assert [is_counted(requests, f"carol-{number}") for number in range(8)] == [0] * 7 + [60]


def test_number_of_names_is_limited_over_all_addresses(clock: Clock) -> None:
    requests = RequestLimits(Limits(10, 10, 3), clock)
    answers = [is_counted(requests, f"bob-{number}", f"198.51.100.{number}") for number in range(5)]
    assert answers == [0, 0, 0, 60, 60]
    assert is_counted(requests, "bob-0", "203.0.113.1") == 0
    clock.now += 60
    assert is_counted(requests, "bob-4") == 0


def test_digest_covers_name_and_all_credentials(clock: Clock) -> None:
    requests = RequestLimits(Limits(1, 1, 1), clock)
    sent = [("bob", BOBS_PASSWORD, None), ("bob", None, BOBS_PASSWORD), ("carol", BOBS_PASSWORD, None)]
    proofs = {requests.digest_of(*one) for one in sent}
    assert len(proofs) == 3
    assert RequestLimits(Limits(1, 1, 1), clock).digest_of(*sent[0]) not in proofs


def test_limits_use_bounded_memory(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = PerMinute(1, max_keys=10, clock=clock)
    for number in range(100):
        counts.add(number)
    assert len(counts) == 10
    monkeypatch.setattr(limits, "MAX_VERIFIED", 2)
    requests = RequestLimits(Limits(1, 1, 1), clock)
    proofs = [requests.digest_of("bob", f"secret {number}", None) for number in range(3)]
    for proof in proofs:
        requests.mark_verified(proof)
    requests.count("bob", HOME, proofs[0])
    with pytest.raises(TooMany):
        requests.count("bob", HOME, proofs[0])
    requests.count("bob", HOME, proofs[1])
    requests.unmark_verified(proofs[1])
    with pytest.raises(TooMany):
        requests.count("bob", HOME, proofs[1])


def test_token_bucket_allows_a_burst_and_then_its_rate(clock: Clock) -> None:
    bucket = TokenBucket(2, 3, clock)
    assert [bucket.take() for _ in range(5)] == [True] * 3 + [False] * 2
    clock.now += 1
    assert [bucket.take() for _ in range(3)] == [True] * 2 + [False]
    clock.now += 100
    assert [bucket.take() for _ in range(5)] == [True] * 3 + [False] * 2


@with_settings(registry_names_per_minute=20)
def test_refused_name_is_not_reported_as_unknown(env: Environment) -> None:
    for number in range(20):
        env.register(f"made-up-{number}", address="203.0.113.5")
    for number in range(60):
        env.alice.creates_user(f"plant-{number}", BOBS_PASSWORD)
        env.register(f"plant-{number}", password=WRONG, address="203.0.113.5")
    found = env.unknown_names.summary()
    assert (found.attempts, found.names, found.name_prefix) == (80, 20, "made-up-")
    assert found.addresses == {"203.0.113.5": 80}


@with_settings(registry_names_per_minute=20)
@ON_BOTH_DATABASES
def test_registered_devices_are_answered_after_a_restart_in_a_flood(env: Environment, settings: Settings) -> None:
    env.unlock()
    env.register_pending("bob")
    env.alice.creates_user("dora", BOBS_PASSWORD, grantTypes=["password", "certificate"])
    env.lock()
    restarted = Environment.opened(settings)
    for number in range(20):
        assert restarted.register(f"made-up-{number}", address=f"198.51.100.{number}").status_code == 423
    for wrong in (restarted.register("bob", password=WRONG), enrols(restarted, "alice"), enrols(restarted, "nobody")):
        assert wrong.status_code == 429
    assert restarted.register("bob").status_code == 202
    assert enrols(restarted, "dora").status_code == 200
    restarted.close()


def test_comparisons_beyond_the_limits_are_limited(clock: Clock) -> None:
    requests = RequestLimits(Limits(1, 100, 1), clock)

    def errors(names: str, holder: CheckedAgainst = CheckedAgainst.REGISTRATION) -> list[type[TooMany]]:
        found: list[type[TooMany]] = []
        for name in names:
            try:
                requests.count(name, HOME, requests.digest_of(name, WRONG, None), holder)
            except TooMany as error:
                found.append(type(error))
        return found

    assert errors("a") == []
    assert errors("bcdefghi") == [LimitExceeded] * COMPARED_PER_SECOND + [TooMany] * (8 - COMPARED_PER_SECOND)
    # Made-up names do not use up the comparisons of users, and repeated guesses from one address are not compared.
    assert errors("jk", CheckedAgainst.USER) == [LimitExceeded] * 2
    clock.now += 1
    assert errors("bl") == [TooMany, LimitExceeded]

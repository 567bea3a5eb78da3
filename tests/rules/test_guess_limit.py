"""The limit of wrong passwords a minute, for unknown and for known client ids."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address

import pytest

from authsvc.policy.guess_limit import (
    ALL_ADDRESSES_FACTOR,
    LIMIT_FOR_KNOWN_CLIENT_ID,
    LIMIT_FOR_UNKNOWN_CLIENT_IDS,
    MAX_COUNTED_OF_USER,
    MAX_REPORTED,
    Counted,
    GuessLimit,
    Login,
)
from authsvc.policy.known_client_ids import KnownClientIds

MINUTE = 60.0
KNOWN = Login("bob", "press-7")
UNKNOWN = Login("bob", "made up")


class Clock:
    """A clock that is set by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limit(clock: Clock) -> GuessLimit:
    return limit_by(clock)


def limit_by(clock: Clock, max_counted: int = 10_000) -> GuessLimit:
    known = KnownClientIds()
    known.add("bob", "press-7")
    return GuessLimit(known, clock, max_counted)


def count(limit: GuessLimit, login: Login, password: str) -> Counted | None:
    return limit.count(limit.attempt(login), password)


def checked(limit: GuessLimit, login: Login, guesses: int, first: int = 0) -> int:
    """Return how many of these different guesses are checked."""
    return sum(count(limit, login, f"guess {first + number}") is not None for number in range(guesses))


@pytest.mark.parametrize(
    ("login", "allowed"),
    [(UNKNOWN, LIMIT_FOR_UNKNOWN_CLIENT_IDS), (KNOWN, LIMIT_FOR_KNOWN_CLIENT_ID)],
    ids=["unknown", "known"],
)
def test_wrong_passwords_a_minute_are_limited(limit: GuessLimit, clock: Clock, login: Login, allowed: int) -> None:
    assert checked(limit, login, 1000) == allowed
    assert limit.refuses(login)
    clock.now += MINUTE - 0.01
    assert checked(limit, login, 1000) == 0
    clock.now += 0.01
    assert not limit.refuses(login)
    assert checked(limit, login, 1000) == allowed


def test_limit_holds_in_every_sliding_minute(limit: GuessLimit, clock: Clock) -> None:
    times = []
    for number in range(1000):
        if count(limit, UNKNOWN, f"guess {number}"):
            times.append(clock.now)
        clock.now += 0.7
    for began in times:
        assert sum(began <= at < began + MINUTE for at in times) <= LIMIT_FOR_UNKNOWN_CLIENT_IDS
    assert len(times) > LIMIT_FOR_UNKNOWN_CLIENT_IDS * 5


def test_all_unknown_client_ids_share_one_limit(limit: GuessLimit) -> None:
    guesses = [count(limit, Login("bob", f"made up {number}"), f"guess {number}") for number in range(1000)]
    assert sum(guess is not None for guess in guesses) == LIMIT_FOR_UNKNOWN_CLIENT_IDS


def test_guesses_with_unknown_client_ids_do_not_throttle_known_ones_or_other_users(limit: GuessLimit) -> None:
    checked(limit, UNKNOWN, 1000)
    assert not limit.refuses(KNOWN)
    assert not limit.refuses(Login("bertha", "made up"))
    assert checked(limit, KNOWN, 1) == 1


def test_same_wrong_password_counts_once_a_minute(limit: GuessLimit, clock: Clock) -> None:
    for _ in range(500):
        assert count(limit, UNKNOWN, "what was right last year")
        clock.now += 0.1
    assert checked(limit, UNKNOWN, 1000) == LIMIT_FOR_UNKNOWN_CLIENT_IDS - 1


def test_counted_password_is_refused_too_once_the_limit_is_reached(limit: GuessLimit) -> None:
    checked(limit, UNKNOWN, LIMIT_FOR_UNKNOWN_CLIENT_IDS)
    assert count(limit, UNKNOWN, "guess 0") is None


def test_uncounted_password_does_not_use_up_the_limit(limit: GuessLimit) -> None:
    for _ in range(500):
        counted = count(limit, UNKNOWN, "right")
        assert counted
        limit.uncount(counted)
    assert checked(limit, UNKNOWN, 1000) == LIMIT_FOR_UNKNOWN_CLIENT_IDS


def test_uncounting_a_repeated_password_keeps_its_first_count(limit: GuessLimit) -> None:
    checked(limit, UNKNOWN, LIMIT_FOR_UNKNOWN_CLIENT_IDS - 1)
    again = count(limit, UNKNOWN, "guess 0")
    assert again
    limit.uncount(again)
    assert checked(limit, UNKNOWN, 1000, first=5000) == 1


def test_uncount_works_after_the_client_id_became_known(clock: Clock) -> None:
    known = KnownClientIds()
    limit = GuessLimit(known, clock)
    counted = count(limit, UNKNOWN, "right")
    assert counted
    known.add(*UNKNOWN[:2])
    limit.uncount(counted)
    assert checked(limit, Login("bob", "another"), 1000) == LIMIT_FOR_UNKNOWN_CLIENT_IDS


def test_concurrent_guesses_share_the_limit(limit: GuessLimit) -> None:
    with ThreadPoolExecutor(8) as pool:
        parts = pool.map(lambda part: checked(limit, UNKNOWN, 200, first=200 * part), range(8))
        assert sum(parts) == LIMIT_FOR_UNKNOWN_CLIENT_IDS


# Brokers that send the address.


def at(address: str, login: Login = UNKNOWN) -> Login:
    return login._replace(address=ip_address(address))


@pytest.mark.parametrize(
    ("login", "allowed"),
    [(UNKNOWN, LIMIT_FOR_UNKNOWN_CLIENT_IDS), (KNOWN, LIMIT_FOR_KNOWN_CLIENT_ID)],
    ids=["unknown", "known"],
)
def test_each_address_has_a_limit_and_all_addresses_have_ten_times_as_much(
    limit: GuessLimit, login: Login, allowed: int
) -> None:
    by_address = [
        checked(limit, at(f"192.0.2.{n}", login), 400, first=400 * n) for n in range(ALL_ADDRESSES_FACTOR + 5)
    ]
    assert by_address == [allowed] * ALL_ADDRESSES_FACTOR + [0] * 5


def test_guesses_from_one_address_do_not_throttle_another(limit: GuessLimit) -> None:
    for login in (UNKNOWN, KNOWN):
        checked(limit, at("192.0.2.1", login), 1000)
        assert limit.refuses(at("192.0.2.1", login))
        assert not limit.refuses(at("192.0.2.2", login))
        assert not limit.refuses(login), "nor through a broker that sends no address"


# Memory.


def test_expired_entries_are_dropped(limit: GuessLimit, clock: Clock) -> None:
    for number in range(2000):
        count(limit, Login(f"press-{number}", "made up"), "guess")
        clock.now += 1
    assert len(limit._of_unknown._windows) <= MINUTE + 1
    assert len(limit._of_unknown._entries) == len(limit._of_unknown._windows)


def test_full_memory_evicts_no_entry_and_does_not_throttle_known_clients(clock: Clock) -> None:
    limit = limit_by(clock, max_counted=100)
    assert checked(limit, UNKNOWN, 1000) == LIMIT_FOR_UNKNOWN_CLIENT_IDS
    others = [checked(limit, Login(f"press-{number}", "made up"), 10) for number in range(100)]
    assert others == [10] * 7 + [1] * 93, "when the memory is full, each user has one check"
    assert checked(limit, UNKNOWN, 1000, first=5000) == 0
    assert checked(limit, KNOWN, 50) == 50
    clock.now += MINUTE
    assert checked(limit, UNKNOWN, 1000) == LIMIT_FOR_UNKNOWN_CLIENT_IDS


def guess_as_mallory(limit: GuessLimit, client_ids: int, address: str | None = None) -> int:
    """Return how many passwords are checked for a stolen account that has logged in with many client ids."""
    logins = [Login("mallory", f"own-{number}") for number in range(client_ids)]
    for login in logins:
        limit._known.add(*login[:2])
    return sum(checked(limit, at(address, login) if address else login, 300) for login in logins)


@pytest.mark.parametrize("address", [None, "192.0.2.1"])
def test_account_that_fills_the_memory_does_not_throttle_known_devices(clock: Clock, address: str | None) -> None:
    limit = limit_by(clock, max_counted=1000)
    guess_as_mallory(limit, client_ids=20, address=address)
    victim = at("192.0.2.2", KNOWN) if address else KNOWN
    assert len(limit._of_known._entries) >= 1000, "the memory is full"
    for _ in range(10):
        assert not limit.refuses(victim)
        right = count(limit, victim, "right")
        assert right
        limit.uncount(right)
    assert checked(limit, victim, 10) == 1
    assert limit.refuses(victim)
    clock.now += MINUTE
    assert checked(limit, victim, 10) == 10


@pytest.mark.parametrize("address", [None, "192.0.2.1"])
def test_one_account_has_3000_entries_and_then_one_for_each_known_client_id(
    limit: GuessLimit, address: str | None
) -> None:
    limit._known.add("mallory", "kept for later")
    assert guess_as_mallory(limit, client_ids=20, address=address) == MAX_COUNTED_OF_USER + 10
    assert not limit.refuses(Login("mallory", "kept for later")), "a client id without a count still has one check"
    assert not limit.refuses(KNOWN)


def test_same_password_from_many_addresses_has_at_most_3000_entries(limit: GuessLimit) -> None:
    login = Login("mallory", "made up")
    checks = [count(limit, at(f"2001:db8:0:{number:x}::1", login), "the same") for number in range(5000)]
    assert sum(counted is not None for counted in checks) == MAX_COUNTED_OF_USER


def test_password_that_counts_under_several_keys_is_one_entry(clock: Clock) -> None:
    limit = limit_by(clock, max_counted=200)
    assert checked(limit, at("192.0.2.1", KNOWN), 1000) == 200


def test_each_login_drops_at_most_100_expired_entries(limit: GuessLimit, clock: Clock) -> None:
    for number in range(100):
        checked(limit, Login(f"press-{number}", "made up"), 20)
    clock.now += MINUTE / 2
    assert checked(limit, UNKNOWN, 1) == 1
    clock.now += MINUTE / 2
    left = [len(limit._of_unknown._entries) for _ in range(21) if not limit.refuses(UNKNOWN)]
    assert left == [*range(1901, 0, -100), 1]


# Reports.


def reported(limit: GuessLimit) -> list[str]:
    names = [attempt.login.username for attempt in limit.reports]
    limit.reports.clear()
    return names


def test_throttled_user_is_reported_once_a_minute(limit: GuessLimit, clock: Clock) -> None:
    for _ in range(3):
        checked(limit, UNKNOWN, 1000)
        checked(limit, KNOWN, 1000)
        assert reported(limit) == ["bob"]
        checked(limit, UNKNOWN, 1000)
        assert reported(limit) == []
        clock.now += MINUTE
    assert limit.throttled_windows == 3


def throttle_decoys(limit: GuessLimit) -> list[str]:
    """Throttle the number of users that are reported in a minute, and return their names."""
    names = [f"decoy-{number}" for number in range(MAX_REPORTED)]
    for name in names:
        checked(limit, Login(name, "made up"), LIMIT_FOR_UNKNOWN_CLIENT_IDS + 1)
    return names


def test_users_beyond_the_report_limit_are_counted_once_a_minute(limit: GuessLimit, clock: Clock) -> None:
    for minute in (1, 2):
        decoys = throttle_decoys(limit)
        for _ in range(2):
            checked(limit, UNKNOWN, LIMIT_FOR_UNKNOWN_CLIENT_IDS + 1)
        assert reported(limit) == decoys
        assert limit.unreported == minute
        assert limit.throttled_windows == minute * (MAX_REPORTED + 1)
        clock.now += MINUTE
    limit.drop_unreported(2)
    assert limit.unreported == 0


def test_decoys_do_not_hide_an_attack_with_a_known_client_id(limit: GuessLimit) -> None:
    decoys = throttle_decoys(limit)
    checked(limit, KNOWN, LIMIT_FOR_KNOWN_CLIENT_ID + 1)
    assert reported(limit) == [*decoys, "bob"]
    assert limit.unreported == 0


def test_queued_reports_are_limited_and_further_ones_counted(limit: GuessLimit, clock: Clock) -> None:
    for _ in range(6):
        throttle_decoys(limit)
        clock.now += MINUTE
    assert len(limit.reports) + limit.unreported == limit.throttled_windows == 6 * MAX_REPORTED
    assert len(limit.reports) < limit.throttled_windows


def test_no_report_within_the_limit(limit: GuessLimit) -> None:
    checked(limit, UNKNOWN, LIMIT_FOR_UNKNOWN_CLIENT_IDS)
    assert reported(limit) == []

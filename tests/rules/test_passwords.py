"""Passwords: what may be one, and how they are checked without keeping a broker waiting."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import bcrypt
import pytest

from authsvc.credentials.hashing import HashingPool
from authsvc.credentials.passwords import MAX_BYTES, PasswordHasher, PasswordPolicy, PasswordVerifier, Verdict, generate
from authsvc.errors import InvalidInput
from tests.actors import BOBS_PASSWORD, HASHER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BOBS_HASH = HASHER.hash(BOBS_PASSWORD)
SOON = 10.0  # seconds to wait for what is already on its way
SHORT = 0.01


def verifier(
    *, max_entries: int = 100, brokers: HashingPool | None = None, api: HashingPool | None = None
) -> PasswordVerifier:
    return PasswordVerifier(brokers or HashingPool(2, 100), api or HashingPool(2, 100, SOON), max_entries, cost=4)


def hashes_spent(checks: PasswordVerifier) -> int:
    return checks.counters.misses


def outcome(begun: Verdict | Future[Verdict]) -> Verdict:
    """Return what a broker would be told if it waited for as long as it takes."""
    return begun.result(SOON) if isinstance(begun, Future) else begun


class SlowHashing:
    """Stands for bcrypt on a machine so slow that a hash ends when the test says so."""

    def __init__(self) -> None:
        self.under_way = threading.Semaphore(0)
        self.may_end = threading.Event()
        self.spent = 0
        self._checkpw = bcrypt.checkpw

    def checkpw(self, password: bytes, hashed: bytes) -> bool:
        self.under_way.release()
        assert self.may_end.wait(SOON)
        matched = self._checkpw(password, hashed)
        self.spent += 1
        return matched


@pytest.fixture
def slow_hashing(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowHashing]:
    slow = SlowHashing()
    monkeypatch.setattr(bcrypt, "checkpw", slow.checkpw)
    yield slow
    slow.may_end.set()


@pytest.mark.parametrize(
    ("policy", "refused", "accepted"),
    [
        (PasswordPolicy(), "abcd", "abcde"),
        (PasswordPolicy(), "äöüß", "äöüßé"),
        (PasswordPolicy(min=0), "\0", ""),
        (PasswordPolicy(lower=1), "ÄBCDE", "ÄBCDß"),
        (PasswordPolicy(lower=2), "aBCDE", "aBCDé"),
        (PasswordPolicy(upper=1), "äbcde", "Äbcde"),
        (PasswordPolicy(upper=1), "ǅabcd", "ǄABCD"),
        (PasswordPolicy(numeric=1), "abcde", "abc4e"),
        (PasswordPolicy(numeric=1), "abcde", "abc\u0664e"),  # an Arabic-Indic four
        (PasswordPolicy(numeric=3), "a1b2c", "1½Ⅷaa"),
        (PasswordPolicy(symbol=1), "abcd5", "abcd—"),
        (PasswordPolicy(symbol=1), "abcdé", "abcd€"),
        (PasswordPolicy(symbol=1), "abcde\u0301\x01", "abcde\u0301+"),  # neither an accent nor a control character
        (PasswordPolicy(symbol=1), "abcde", "ab de"),
        (PasswordPolicy(symbol=2), "abcd!", "abc_!"),
        (PasswordPolicy(lower=1, upper=1, numeric=1, symbol=1), "Abcde1", "Abcd1!"),
    ],
)
def test_a_policy_counts_characters_of_unicode_classes(policy: PasswordPolicy, refused: str, accepted: str) -> None:
    policy.check(accepted)
    with pytest.raises(InvalidInput) as error:
        policy.check(refused)
    assert [each.field for each in error.value.errors] == ["password"]


def test_letters_of_no_case_are_neither_lower_nor_upper_case() -> None:
    for policy in (PasswordPolicy(lower=1), PasswordPolicy(upper=1), PasswordPolicy(symbol=1)):
        with pytest.raises(InvalidInput):
            policy.check("密码密码密码")


@pytest.mark.parametrize("password", ["abcd", "a" * 73, "secret\0secret"])
def test_a_refused_password_is_never_repeated(password: str) -> None:
    with pytest.raises(InvalidInput) as error:
        HASHER.hash(password)
    assert password not in str(error.value)


@pytest.mark.parametrize(
    ("longest", "too_long"), [("a" * 72, "a" * 73), ("é" * 36, "é" * 36 + "a"), ("€" * 24, "€" * 25)]
)
def test_bcrypt_reads_72_bytes_so_longer_passwords_are_neither_set_nor_right(longest: str, too_long: str) -> None:
    hashed = HASHER.hash(longest)
    checks = verifier()
    assert checks.verify("bob", longest, hashed) is Verdict.RIGHT
    assert checks.verify("bob", too_long, hashed) is Verdict.WRONG
    with pytest.raises(InvalidInput):
        HASHER.hash(too_long)


@pytest.mark.parametrize("ask", [PasswordVerifier.begin, PasswordVerifier.verify])
def test_a_password_longer_than_any_costs_no_hash(ask: Callable[..., Verdict | Future[Verdict]]) -> None:
    checks = verifier()
    assert ask(checks, "bob", "a" * (MAX_BYTES + 1), BOBS_HASH) is Verdict.WRONG
    assert hashes_spent(checks) == 0


def test_a_hash_has_the_cost_that_was_asked_for_and_a_salt_of_its_own() -> None:
    hasher = PasswordHasher(PasswordPolicy(), 5, HASHER.pool)
    assert hasher.hash(BOBS_PASSWORD).startswith("$2b$05$")
    assert hasher.hash(BOBS_PASSWORD) != hasher.hash(BOBS_PASSWORD)


def test_a_password_that_is_not_unicode_is_refused_like_any_other() -> None:
    with pytest.raises(InvalidInput):
        HASHER.hash("secret-\udcff")


@pytest.mark.parametrize(
    "damaged",
    [
        "",
        "not a hash",
        BOBS_HASH[:-1],
        BOBS_HASH[:29],
        BOBS_HASH + "x",
        BOBS_HASH[:7] + "!" * 53,
        "$2b$99$" + BOBS_HASH[7:],
        "$2z$04$" + BOBS_HASH[7:],
        "$2b$04",
        "é" * 60,
    ],
    ids=["empty", "prose", "cut", "salt alone", "long", "not base64", "cost", "variant", "header alone", "not ASCII"],
)
def test_a_damaged_hash_matches_nothing(damaged: str) -> None:
    assert verifier().verify("bob", BOBS_PASSWORD, damaged) is Verdict.WRONG


@pytest.mark.parametrize("offered", ["", "\0", BOBS_PASSWORD + "\0", "\ud800", "wrong", BOBS_PASSWORD.upper()])
def test_whatever_is_offered_gets_an_answer(offered: str) -> None:
    assert verifier().verify("bob", offered, BOBS_HASH) is Verdict.WRONG


def test_a_right_password_costs_one_hash_and_is_remembered() -> None:
    checks = verifier()
    for _ in range(3):
        assert checks.verify("bob", BOBS_PASSWORD, BOBS_HASH) is Verdict.RIGHT
    assert (checks.counters.misses, checks.counters.hits, checks.entries) == (1, 2, 1)


def test_where_the_right_password_is_known_any_other_is_refused_at_once() -> None:
    checks = verifier()
    checks.verify("bob", BOBS_PASSWORD, BOBS_HASH)
    for guess in ("guess 1", "guess 2", "guess 3"):
        assert checks.verify("bob", guess, BOBS_HASH) is Verdict.WRONG
    assert (checks.counters.misses, checks.counters.hits, checks.entries) == (1, 3, 1)


def test_a_device_that_repeats_its_wrong_password_costs_one_hash() -> None:
    checks = verifier()
    for _ in range(3):
        assert checks.verify("bob", "wrong", BOBS_HASH) is Verdict.WRONG
    assert (checks.counters.misses, checks.counters.hits, checks.entries) == (1, 2, 0)


def test_remembered_answers_need_no_hash_and_so_no_pool(slow_hashing: SlowHashing) -> None:
    slow_hashing.may_end.set()
    checks = verifier(brokers=HashingPool(1, 1), api=HashingPool(1, 1, SHORT))
    checks.verify("bob", BOBS_PASSWORD, BOBS_HASH)
    checks.verify("bertha", "wrong", BOBS_HASH)
    slow_hashing.may_end.clear()
    stuck = checks.begin("bruno", "x", BOBS_HASH)
    assert isinstance(stuck, Future)
    for ask in (checks.begin, checks.verify):
        assert ask("bob", BOBS_PASSWORD, BOBS_HASH) is Verdict.RIGHT
        assert ask("bob", "guess", BOBS_HASH) is Verdict.WRONG
        assert ask("bertha", "wrong", BOBS_HASH) is Verdict.WRONG
    slow_hashing.may_end.set()
    assert stuck.result(SOON) is Verdict.WRONG


def test_a_changed_password_is_in_force_at_once() -> None:
    checks = verifier()
    new_password = "bob's next secret"
    new_hash = HASHER.hash(new_password)
    assert checks.verify("bob", BOBS_PASSWORD, BOBS_HASH) is Verdict.RIGHT
    assert checks.verify("bob", new_password, BOBS_HASH) is Verdict.WRONG

    assert checks.verify("bob", BOBS_PASSWORD, new_hash) is Verdict.WRONG
    assert checks.verify("bob", new_password, new_hash) is Verdict.RIGHT
    assert checks.verify("bob", BOBS_PASSWORD, new_hash) is Verdict.WRONG
    assert checks.entries == 1


def test_a_password_once_wrong_is_right_as_soon_as_it_is_set() -> None:
    checks = verifier()
    assert checks.verify("bob", "wrong", BOBS_HASH) is Verdict.WRONG
    assert checks.verify("bob", "wrong", HASHER.hash("wrong")) is Verdict.RIGHT


def test_what_is_remembered_of_bob_does_not_let_charlie_in() -> None:
    checks = verifier()
    checks.verify("bob", BOBS_PASSWORD, BOBS_HASH)
    assert checks.verify("charlie", BOBS_PASSWORD, HASHER.hash("charlie's secret")) is Verdict.WRONG


def test_a_broker_is_told_at_once_what_is_remembered_and_may_wait_for_the_rest() -> None:
    checks = verifier()
    for offered, verdict in ((BOBS_PASSWORD, Verdict.RIGHT), ("wrong", Verdict.WRONG)):
        checks = verifier()
        begun = checks.begin("bob", offered, BOBS_HASH)
        assert isinstance(begun, Future)
        assert begun.result(SOON) is verdict
        assert checks.begin("bob", offered, BOBS_HASH) is verdict
        assert hashes_spent(checks) == 1


def test_who_gives_up_waiting_finds_the_answer_there_next_time(slow_hashing: SlowHashing) -> None:
    checks = verifier()
    begun = checks.begin("bob", BOBS_PASSWORD, BOBS_HASH)
    assert isinstance(begun, Future)
    assert not begun.done()
    slow_hashing.may_end.set()
    begun.result(SOON)
    assert checks.begin("bob", BOBS_PASSWORD, BOBS_HASH) is Verdict.RIGHT


def test_the_same_login_twice_at_once_costs_one_hash(slow_hashing: SlowHashing) -> None:
    checks = verifier()
    first, second = (checks.begin("bob", BOBS_PASSWORD, BOBS_HASH) for _ in range(2))
    slow_hashing.may_end.set()
    assert outcome(first) is outcome(second) is Verdict.RIGHT
    assert slow_hashing.spent == 1


@pytest.mark.parametrize(("offered", "called"), [(BOBS_PASSWORD, ["press-7", "press-8"]), ("wrong", [])])
def test_each_login_that_waits_for_the_same_hash_is_told_that_the_password_is_right(
    slow_hashing: SlowHashing, offered: str, called: list[str]
) -> None:
    checks = verifier()
    told: list[str] = []
    logins = [
        checks.begin("bob", offered, BOBS_HASH, None, lambda name=name: told.append(name))  # type: ignore[misc]
        for name in ("press-7", "press-8")
    ]
    slow_hashing.may_end.set()
    assert outcome(logins[0]) is outcome(logins[1])
    assert told == called
    assert slow_hashing.spent == 1


def test_guesses_at_one_name_run_one_at_a_time_and_keep_nobody_else_waiting(slow_hashing: SlowHashing) -> None:
    checks = verifier(brokers=HashingPool(2, 10))
    begun = checks.begin("bob", "guess 1", BOBS_HASH)
    for n in range(2, 7):
        assert checks.begin("bob", f"guess {n}", BOBS_HASH) is Verdict.BUSY
    assert checks.counters.busy == 5
    bertha = checks.begin("bertha", BOBS_PASSWORD, BOBS_HASH)
    slow_hashing.may_end.set()
    assert outcome(bertha) is Verdict.RIGHT
    assert outcome(begun) is Verdict.WRONG
    assert outcome(checks.begin("bob", BOBS_PASSWORD, BOBS_HASH)) is Verdict.RIGHT
    assert slow_hashing.spent == 3


def test_a_guess_at_a_changed_password_does_not_stand_for_the_new_one(slow_hashing: SlowHashing) -> None:
    checks = verifier()
    begun = checks.begin("bob", BOBS_PASSWORD, BOBS_HASH)
    new_hash = HASHER.hash("bob's next secret")
    assert checks.begin("bob", BOBS_PASSWORD, new_hash) is Verdict.BUSY
    slow_hashing.may_end.set()
    assert outcome(begun) is Verdict.RIGHT
    assert outcome(checks.begin("bob", BOBS_PASSWORD, new_hash)) is Verdict.WRONG


def test_more_logins_than_the_queue_holds_are_told_so(slow_hashing: SlowHashing) -> None:
    checks = verifier(brokers=HashingPool(1, 3))
    begun = [checks.begin(f"device-{n}", BOBS_PASSWORD, BOBS_HASH) for n in range(5)]
    assert begun[3:] == [Verdict.BUSY, Verdict.BUSY]
    assert checks.counters.busy == 2
    slow_hashing.may_end.set()
    assert [outcome(each) for each in begun[:3]] == [Verdict.RIGHT] * 3
    assert outcome(checks.begin("device-4", BOBS_PASSWORD, BOBS_HASH)) is Verdict.RIGHT


def test_brokers_and_the_api_do_not_wait_for_each_other(slow_hashing: SlowHashing) -> None:
    checks = verifier(brokers=HashingPool(1, 1), api=HashingPool(1, 1, SHORT))
    login = checks.begin("bob", BOBS_PASSWORD, BOBS_HASH)
    assert checks.verify("alice", BOBS_PASSWORD, BOBS_HASH) is Verdict.BUSY
    assert checks.verify_nobody(BOBS_PASSWORD) is Verdict.BUSY
    assert checks.begin("bertha", BOBS_PASSWORD, BOBS_HASH) is Verdict.BUSY
    for _ in range(2):  # one of each pool has begun
        assert slow_hashing.under_way.acquire(timeout=SOON)
    slow_hashing.may_end.set()
    assert outcome(login) is Verdict.RIGHT


@pytest.mark.parametrize("ask", [PasswordVerifier.begin, PasswordVerifier.verify])
def test_a_damaged_hash_leaves_room_for_the_next(ask: Callable[..., Verdict | Future[Verdict]]) -> None:
    checks = verifier(brokers=HashingPool(1, 1), api=HashingPool(1, 1))
    for n in range(3):
        assert outcome(ask(checks, "bob", f"{n}", "damaged")) is Verdict.WRONG
    assert checks.counters.busy == 0


def test_of_more_right_passwords_than_the_bound_the_latest_are_remembered() -> None:
    checks = verifier(max_entries=3)
    names = ["bob", "bertha", "bruno", "berta", "boris"]
    for name in names:
        checks.verify(name, BOBS_PASSWORD, BOBS_HASH)
    assert checks.entries == 3
    assert hashes_spent(checks) == 5
    for name in names[2:]:
        checks.verify(name, BOBS_PASSWORD, BOBS_HASH)
    assert hashes_spent(checks) == 5
    checks.verify("bob", BOBS_PASSWORD, BOBS_HASH)
    assert hashes_spent(checks) == 6


def test_of_more_wrong_passwords_than_the_bound_the_latest_are_remembered() -> None:
    checks = verifier(max_entries=3)
    for n in range(5):
        checks.verify("bob", f"wrong {n}", BOBS_HASH)
    checks.verify("bob", "wrong 4", BOBS_HASH)
    assert hashes_spent(checks) == 5
    checks.verify("bob", "wrong 0", BOBS_HASH)
    assert hashes_spent(checks) == 6


def test_many_devices_at_once_each_get_their_own_answer() -> None:
    checks = verifier(max_entries=50)
    names = [f"device-{n % 20}" for n in range(200)]
    offered = [BOBS_PASSWORD if n % 20 < 10 else "wrong" for n in range(200)]
    with ThreadPoolExecutor(16) as pool:
        verdicts = list(pool.map(checks.verify, names, offered, itertools.repeat(BOBS_HASH)))
    assert verdicts == [Verdict.RIGHT if password == BOBS_PASSWORD else Verdict.WRONG for password in offered]
    assert (checks.entries, checks.counters.busy) == (10, 0)


def test_a_name_nobody_has_costs_a_hash_like_any_other(slow_hashing: SlowHashing) -> None:
    slow_hashing.may_end.set()
    checks = verifier()
    for offered in (BOBS_PASSWORD, "", "\ud800", "a" * 100, BOBS_PASSWORD):
        assert checks.verify_nobody(offered) is Verdict.WRONG
    assert slow_hashing.spent == 5
    assert checks.entries == 0


@pytest.mark.parametrize(
    "policy",
    [
        PasswordPolicy(),
        PasswordPolicy(min=0),
        PasswordPolicy(min=72),
        PasswordPolicy(lower=20, upper=20),
        PasswordPolicy(numeric=18, symbol=18, upper=18, lower=18),
    ],
)
def test_a_generated_password_satisfies_the_policy_and_is_another_each_time(policy: PasswordPolicy) -> None:
    first, second = generate(policy), generate(policy)
    policy.check(first)
    assert first != second
    assert len(first) >= 17

"""Passwords: the policy, hashing, and verification with its cache."""

from __future__ import annotations

import hashlib
import itertools
import threading
from base64 import b64encode
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from math import log2
from time import sleep
from typing import TYPE_CHECKING

import bcrypt
import pytest

from authsvc.credentials.hashing import HashingPool
from authsvc.credentials.password_hashes import rehash
from authsvc.credentials.passwords import MAX_BYTES, PasswordHasher, PasswordPolicy, PasswordVerifier, Verdict, generate
from authsvc.errors import InvalidInput
from tests.actors import BOBS_PASSWORD, HASHER
from tests.rules.test_password_hashes import ARGON2ID, MOSQUITTO_PBKDF2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BOBS_HASH = HASHER.hash(BOBS_PASSWORD)
SOON = 10.0  # timeout in seconds for results that are expected at once
SHORT = 0.01


def verifier(
    *, max_entries: int = 100, brokers: HashingPool | None = None, api: HashingPool | None = None
) -> PasswordVerifier:
    return PasswordVerifier(brokers or HashingPool(2, 100), api or HashingPool(2, 100, SOON), max_entries, cost=4)


def hashes_computed(checks: PasswordVerifier) -> int:
    return checks.counters.misses


def outcome(begun: Verdict | Future[Verdict]) -> Verdict:
    """Return the verdict, after waiting for the hash if there is one."""
    return begun.result(SOON) if isinstance(begun, Future) else begun


class SlowHashing:
    """A replacement of `bcrypt.checkpw` that ends when the test allows it."""

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
def test_policy_counts_characters_of_unicode_classes(policy: PasswordPolicy, refused: str, accepted: str) -> None:
    policy.check(accepted)
    with pytest.raises(InvalidInput) as error:
        policy.check(refused)
    assert [each.field for each in error.value.errors] == ["password"]


def test_letters_without_case_are_neither_lower_nor_upper_case() -> None:
    for policy in (PasswordPolicy(lower=1), PasswordPolicy(upper=1), PasswordPolicy(symbol=1)):
        with pytest.raises(InvalidInput):
            policy.check("密码密码密码")


@pytest.mark.parametrize("password", ["abcd", "a" * 73, "secret\0secret"])
def test_error_does_not_contain_the_refused_password(password: str) -> None:
    with pytest.raises(InvalidInput) as error:
        HASHER.hash(password)
    assert password not in str(error.value)


@pytest.mark.parametrize(
    ("longest", "too_long"), [("a" * 72, "a" * 73), ("é" * 36, "é" * 36 + "a"), ("€" * 24, "€" * 25)]
)
def test_password_longer_than_72_bytes_cannot_be_set_and_is_wrong(longest: str, too_long: str) -> None:
    hashed = HASHER.hash(longest)
    checks = verifier()
    assert checks.verify("bob", longest, hashed) is Verdict.RIGHT
    assert checks.verify("bob", too_long, hashed) is Verdict.WRONG
    with pytest.raises(InvalidInput):
        HASHER.hash(too_long)


@pytest.mark.parametrize("ask", [PasswordVerifier.start, PasswordVerifier.verify])
def test_too_long_password_costs_no_hash(ask: Callable[..., Verdict | Future[Verdict]]) -> None:
    checks = verifier()
    assert ask(checks, "bob", "a" * (MAX_BYTES + 1), BOBS_HASH) is Verdict.WRONG
    assert hashes_computed(checks) == 0


def test_hash_has_the_configured_cost_and_a_random_salt() -> None:
    hasher = PasswordHasher(PasswordPolicy(), 5, HASHER.pool)
    assert hasher.hash(BOBS_PASSWORD).startswith("$2b$05$")
    assert hasher.hash(BOBS_PASSWORD) != hasher.hash(BOBS_PASSWORD)


def test_password_that_is_not_valid_unicode_is_refused() -> None:
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
def test_damaged_hash_matches_no_password(damaged: str) -> None:
    assert verifier().verify("bob", BOBS_PASSWORD, damaged) is Verdict.WRONG


@pytest.mark.parametrize("offered", ["", "\0", BOBS_PASSWORD + "\0", "\ud800", "wrong", BOBS_PASSWORD.upper()])
def test_any_other_text_is_wrong(offered: str) -> None:
    assert verifier().verify("bob", offered, BOBS_HASH) is Verdict.WRONG


def test_right_password_costs_one_hash_and_is_cached() -> None:
    checks = verifier()
    for _ in range(3):
        assert checks.verify("bob", BOBS_PASSWORD, BOBS_HASH) is Verdict.RIGHT
    assert (checks.counters.misses, checks.counters.hits, checks.entries) == (1, 2, 1)


def test_wrong_password_costs_no_hash_once_the_right_one_is_cached() -> None:
    checks = verifier()
    checks.verify("bob", BOBS_PASSWORD, BOBS_HASH)
    for guess in ("guess 1", "guess 2", "guess 3"):
        assert checks.verify("bob", guess, BOBS_HASH) is Verdict.WRONG
    assert (checks.counters.misses, checks.counters.hits, checks.entries) == (1, 3, 1)


def test_repeated_wrong_password_costs_one_hash() -> None:
    checks = verifier()
    for _ in range(3):
        assert checks.verify("bob", "wrong", BOBS_HASH) is Verdict.WRONG
    assert (checks.counters.misses, checks.counters.hits, checks.entries) == (1, 2, 0)


def test_cached_verdicts_need_no_pool(slow_hashing: SlowHashing) -> None:
    slow_hashing.may_end.set()
    checks = verifier(brokers=HashingPool(1, 1), api=HashingPool(1, 1, SOON))
    checks.verify("bob", BOBS_PASSWORD, BOBS_HASH)
    checks.verify("bertha", "wrong", BOBS_HASH)
    slow_hashing.may_end.clear()
    stuck = checks.start("bruno", "x", BOBS_HASH)
    assert isinstance(stuck, Future)
    for ask in (checks.start, checks.verify):
        assert ask("bob", BOBS_PASSWORD, BOBS_HASH) is Verdict.RIGHT
        assert ask("bob", "guess", BOBS_HASH) is Verdict.WRONG
        assert ask("bertha", "wrong", BOBS_HASH) is Verdict.WRONG
    slow_hashing.may_end.set()
    assert stuck.result(SOON) is Verdict.WRONG


def test_changed_password_takes_effect_at_once() -> None:
    checks = verifier()
    new_password = "bob's next secret"
    new_hash = HASHER.hash(new_password)
    assert checks.verify("bob", BOBS_PASSWORD, BOBS_HASH) is Verdict.RIGHT
    assert checks.verify("bob", new_password, BOBS_HASH) is Verdict.WRONG

    assert checks.verify("bob", BOBS_PASSWORD, new_hash) is Verdict.WRONG
    assert checks.verify("bob", new_password, new_hash) is Verdict.RIGHT
    assert checks.verify("bob", BOBS_PASSWORD, new_hash) is Verdict.WRONG
    assert checks.entries == 1


def test_cached_wrong_password_is_right_once_it_is_set() -> None:
    checks = verifier()
    assert checks.verify("bob", "wrong", BOBS_HASH) is Verdict.WRONG
    assert checks.verify("bob", "wrong", HASHER.hash("wrong")) is Verdict.RIGHT


def test_cached_password_of_one_user_is_wrong_for_another() -> None:
    checks = verifier()
    checks.verify("bob", BOBS_PASSWORD, BOBS_HASH)
    assert checks.verify("charlie", BOBS_PASSWORD, HASHER.hash("charlie's secret")) is Verdict.WRONG


def test_start_returns_a_future_first_and_then_the_cached_verdict() -> None:
    checks = verifier()
    for offered, verdict in ((BOBS_PASSWORD, Verdict.RIGHT), ("wrong", Verdict.WRONG)):
        checks = verifier()
        begun = checks.start("bob", offered, BOBS_HASH)
        assert isinstance(begun, Future)
        assert begun.result(SOON) is verdict
        assert checks.start("bob", offered, BOBS_HASH) is verdict
        assert hashes_computed(checks) == 1


def test_hash_continues_without_a_waiter_and_is_cached(slow_hashing: SlowHashing) -> None:
    checks = verifier()
    begun = checks.start("bob", BOBS_PASSWORD, BOBS_HASH)
    assert isinstance(begun, Future)
    assert not begun.done()
    slow_hashing.may_end.set()
    begun.result(SOON)
    assert checks.start("bob", BOBS_PASSWORD, BOBS_HASH) is Verdict.RIGHT


def test_two_concurrent_equal_logins_cost_one_hash(slow_hashing: SlowHashing) -> None:
    checks = verifier()
    first, second = (checks.start("bob", BOBS_PASSWORD, BOBS_HASH) for _ in range(2))
    slow_hashing.may_end.set()
    assert outcome(first) is outcome(second) is Verdict.RIGHT
    assert slow_hashing.spent == 1


@pytest.mark.parametrize(("offered", "called"), [(BOBS_PASSWORD, ["press-7", "press-8"]), ("wrong", [])])
def test_right_password_calls_on_right_of_each_waiting_login(
    slow_hashing: SlowHashing, offered: str, called: list[str]
) -> None:
    checks = verifier()
    called_for: list[str] = []
    logins = [
        checks.start("bob", offered, BOBS_HASH, None, lambda name=name: called_for.append(name))  # type: ignore[misc]
        for name in ("press-7", "press-8")
    ]
    slow_hashing.may_end.set()
    assert outcome(logins[0]) is outcome(logins[1])
    assert called_for == called
    assert slow_hashing.spent == 1


def test_one_hash_at_a_time_runs_for_a_username_and_others_do_not_wait(slow_hashing: SlowHashing) -> None:
    checks = verifier(brokers=HashingPool(2, 10))
    begun = checks.start("bob", "guess 1", BOBS_HASH)
    for n in range(2, 7):
        assert checks.start("bob", f"guess {n}", BOBS_HASH) is Verdict.BUSY
    assert checks.counters.busy == 5
    bertha = checks.start("bertha", BOBS_PASSWORD, BOBS_HASH)
    slow_hashing.may_end.set()
    assert outcome(bertha) is Verdict.RIGHT
    assert outcome(begun) is Verdict.WRONG
    assert outcome(checks.start("bob", BOBS_PASSWORD, BOBS_HASH)) is Verdict.RIGHT
    assert slow_hashing.spent == 3


def test_running_hash_of_an_old_password_is_not_used_for_the_new_one(slow_hashing: SlowHashing) -> None:
    checks = verifier()
    begun = checks.start("bob", BOBS_PASSWORD, BOBS_HASH)
    new_hash = HASHER.hash("bob's next secret")
    assert checks.start("bob", BOBS_PASSWORD, new_hash) is Verdict.BUSY
    slow_hashing.may_end.set()
    assert outcome(begun) is Verdict.RIGHT
    assert outcome(checks.start("bob", BOBS_PASSWORD, new_hash)) is Verdict.WRONG


def test_logins_beyond_the_queue_are_busy(slow_hashing: SlowHashing) -> None:
    checks = verifier(brokers=HashingPool(1, 3))
    begun = [checks.start(f"device-{n}", BOBS_PASSWORD, BOBS_HASH) for n in range(5)]
    assert begun[3:] == [Verdict.BUSY, Verdict.BUSY]
    assert checks.counters.busy == 2
    slow_hashing.may_end.set()
    assert [outcome(each) for each in begun[:3]] == [Verdict.RIGHT] * 3
    assert outcome(checks.start("device-4", BOBS_PASSWORD, BOBS_HASH)) is Verdict.RIGHT


def test_brokers_and_the_api_have_separate_pools(slow_hashing: SlowHashing) -> None:
    checks = verifier(brokers=HashingPool(1, 1), api=HashingPool(1, 1, SHORT))
    login = checks.start("bob", BOBS_PASSWORD, BOBS_HASH)
    assert checks.verify("alice", BOBS_PASSWORD, BOBS_HASH) is Verdict.BUSY
    assert checks.verify_unknown_user(BOBS_PASSWORD) is Verdict.BUSY
    assert checks.start("bertha", BOBS_PASSWORD, BOBS_HASH) is Verdict.BUSY
    for _ in range(2):  # one of each pool has begun
        assert slow_hashing.under_way.acquire(timeout=SOON)
    slow_hashing.may_end.set()
    assert outcome(login) is Verdict.RIGHT


@pytest.mark.parametrize("ask", [PasswordVerifier.start, PasswordVerifier.verify])
def test_damaged_hash_frees_its_place_in_the_pool(ask: Callable[..., Verdict | Future[Verdict]]) -> None:
    checks = verifier(brokers=HashingPool(1, 1), api=HashingPool(1, 1))
    for n in range(3):
        assert outcome(ask(checks, "bob", f"{n}", "damaged")) is Verdict.WRONG
    assert checks.counters.busy == 0


def test_latest_right_passwords_stay_cached() -> None:
    checks = verifier(max_entries=3)
    names = ["bob", "bertha", "bruno", "berta", "boris"]
    for name in names:
        checks.verify(name, BOBS_PASSWORD, BOBS_HASH)
    assert checks.entries == 3
    assert hashes_computed(checks) == 5
    for name in names[2:]:
        checks.verify(name, BOBS_PASSWORD, BOBS_HASH)
    assert hashes_computed(checks) == 5
    checks.verify("bob", BOBS_PASSWORD, BOBS_HASH)
    assert hashes_computed(checks) == 6


def test_latest_wrong_passwords_stay_cached() -> None:
    checks = verifier(max_entries=3)
    for n in range(5):
        checks.verify("bob", f"wrong {n}", BOBS_HASH)
    checks.verify("bob", "wrong 4", BOBS_HASH)
    assert hashes_computed(checks) == 5
    checks.verify("bob", "wrong 0", BOBS_HASH)
    assert hashes_computed(checks) == 6


def test_concurrent_logins_get_their_own_verdicts() -> None:
    checks = verifier(max_entries=50)
    names = [f"device-{n % 20}" for n in range(200)]
    offered = [BOBS_PASSWORD if n % 20 < 10 else "wrong" for n in range(200)]
    with ThreadPoolExecutor(16) as pool:
        verdicts = list(pool.map(checks.verify, names, offered, itertools.repeat(BOBS_HASH)))
    assert verdicts == [Verdict.RIGHT if password == BOBS_PASSWORD else Verdict.WRONG for password in offered]
    assert (checks.entries, checks.counters.busy) == (10, 0)


def test_unknown_username_costs_one_hash(slow_hashing: SlowHashing) -> None:
    slow_hashing.may_end.set()
    checks = verifier()
    for offered in (BOBS_PASSWORD, "", "\ud800", "a" * 100, BOBS_PASSWORD):
        assert checks.verify_unknown_user(offered) is Verdict.WRONG
    assert slow_hashing.spent == 5
    assert checks.entries == 0


@pytest.mark.parametrize("ask", [PasswordVerifier.start, PasswordVerifier.verify, PasswordVerifier.cached_verdict])
def test_generated_password_is_checked_without_a_slow_hash(ask: Callable[..., Verdict | Future[Verdict]]) -> None:
    generated = generate(PasswordPolicy())
    stored = HASHER.hash(generated)
    assert stored.startswith("$generated-sha256$")
    checks = verifier()
    assert ask(checks, "bob", generated, stored) is Verdict.RIGHT
    assert ask(checks, "bob", generated[1:], stored) is Verdict.WRONG
    assert hashes_computed(checks) == 0


def test_password_that_somebody_chose_is_hashed_with_bcrypt() -> None:
    assert HASHER.hash(str(generate(PasswordPolicy()))).startswith("$2b$")


def test_right_password_of_a_foreign_hash_is_passed_on_each_time() -> None:
    passed: list[tuple[str, str, bytes]] = []
    pool = HashingPool(2, 100, SOON)
    checks = PasswordVerifier(pool, pool, 100, 4, on_foreign=lambda *right: passed.append(right))
    for offered, verdict in (("wrong", Verdict.WRONG), ("secret", Verdict.RIGHT), ("secret", Verdict.RIGHT)):
        assert checks.verify("bob", offered, MOSQUITTO_PBKDF2) is verdict
    assert checks.verify("bertha", BOBS_PASSWORD, BOBS_HASH) is Verdict.RIGHT
    assert passed == [("bob", MOSQUITTO_PBKDF2, b"secret")] * 2
    assert hashes_computed(checks) == 3


def test_cached_password_stays_cached_when_its_foreign_hash_is_replaced() -> None:
    checks = verifier()
    assert checks.verify("bob", "secret", MOSQUITTO_PBKDF2) is Verdict.RIGHT
    replacement = rehash(MOSQUITTO_PBKDF2, b"secret", 4)
    assert checks.start("bob", "secret", replacement) is Verdict.RIGHT
    assert checks.start("bob", "wrong", replacement) is Verdict.WRONG
    assert hashes_computed(checks) == 1


def test_password_longer_than_72_bytes_can_match_a_foreign_hash() -> None:
    assert verifier().verify("bob", "a" * 99, MOSQUITTO_PBKDF2) is Verdict.WRONG
    salt, long = b64encode(b"salt").decode(), "a" * 99
    stored = f"$6${salt}${b64encode(hashlib.sha512(long.encode() + b'salt').digest()).decode()}"
    assert verifier().verify("bob", long, stored) is Verdict.RIGHT


def test_hashes_that_need_much_memory_are_computed_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    running, most = Counter[str](), Counter[str]()

    def computed(*_: object, **__: object) -> bytes:
        running["now"] += 1
        most["now"] = max(most["now"], running["now"])
        sleep(0.01)
        running["now"] -= 1
        return b""

    monkeypatch.setattr("authsvc.credentials.password_hashes.hash_secret_raw", computed)
    checks = verifier(brokers=HashingPool(4, 100), api=HashingPool(4, 100))
    large = ARGON2ID.replace(ARGON2ID.split("$")[3], "m=100000,t=1,p=1")
    begun = [checks.start(f"device-{n}", "x", large) for n in range(8)]
    assert {outcome(each) for each in begun} == {Verdict.WRONG}
    assert most["now"] == 1


@pytest.mark.parametrize(
    "policy",
    [
        PasswordPolicy(),
        PasswordPolicy(numeric=40),
        PasswordPolicy(min=0),
        PasswordPolicy(min=72),
        PasswordPolicy(lower=20, upper=20),
        PasswordPolicy(numeric=18, symbol=18, upper=18, lower=18),
    ],
)
def test_generated_password_satisfies_the_policy_and_differs_each_time(policy: PasswordPolicy) -> None:
    first, second = generate(policy), generate(policy)
    policy.check(first)
    assert first != second
    assert len(first) >= 17


@pytest.mark.parametrize("policy", [PasswordPolicy(), PasswordPolicy(numeric=17), PasswordPolicy(lower=9, symbol=9)])
def test_generated_password_has_96_bits_whatever_the_policy_asks_for(policy: PasswordPolicy) -> None:
    bits = policy.numeric * log2(10) + policy.lower * log2(26) + policy.symbol * 2
    free = len(generate(policy)) - policy.numeric - policy.lower - policy.symbol
    assert bits + free * log2(62) >= 96

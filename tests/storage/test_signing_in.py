"""Sign-ins during password guessing and simultaneous changes."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import TYPE_CHECKING, TypeVar, cast

import bcrypt
import pytest
import time_machine

from authsvc.accounts import api_tokens, browser_sessions, users
from authsvc.accounts.sign_in import passwords
from authsvc.accounts.sign_in.methods import How, Method, Missing, SignIn
from authsvc.accounts.sign_in.passwords import MAX_NETWORKS, TIMES_PER_NAME, TIMES_PER_NETWORK, SignIns
from authsvc.accounts.sign_in.second_factor import SecondFactors
from authsvc.activity.failed_sign_ins import FailedSignIns
from authsvc.credentials.hashing import HashingPool, measured
from authsvc.credentials.passwords import PasswordHasher, PasswordPolicy, PasswordVerifier
from authsvc.errors import Busy, TooMany, Unauthenticated
from authsvc.policy.access import AccessControl
from authsvc.policy.actors import Actor, Proof, Via
from authsvc.policy.known_client_ids import KnownClientIds
from authsvc.settings import Lifetime
from authsvc.storage.database import session
from authsvc.storage.models import BrowserSession, SignInAddress, Token
from tests.actors import ALICE, BOBS_PASSWORD
from tests.storage.environment import all_rows, change_user, create_bob, create_user, loaded_policy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from authsvc.policy.decision import Denied
    from authsvc.policy.snapshot import UserPolicy

T = TypeVar("T")

pytestmark = pytest.mark.usefixtures("prepared")

HERE = "192.0.2.7"
PER_MINUTE = 3
LIFETIME = Lifetime(timedelta(minutes=30), timedelta(hours=12))
WRONG, REFUSED, IN = "wrong", "refused", "in"


class CountedPool(HashingPool):
    """A hashing pool that counts the hashes."""

    count = 0

    def submit(self, work: Callable[[], T], *, first: bool = False, estimate: float = 1.0) -> Future[T]:
        self.count += 1
        return super().submit(work, first=first, estimate=estimate)


class GatedAccess:
    """A check of the right password that blocks until the test continues it."""

    failure_seconds = 0.0

    def __init__(self, user: UserPolicy) -> None:
        self._user = user
        self.entered = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.first: list[bool] = []

    def authenticate_cached_password(self, _username: str, _password: str) -> None:
        return None

    def authenticate_password(self, _username: str, _password: str, *, first: bool = False) -> UserPolicy | Denied:
        self.first.append(first)
        self.entered.release()
        assert self.go_on.wait(20)
        return self._user


def access(pool: HashingPool | None = None, cost: int = 4) -> AccessControl:
    """Return the access control of a worker that has just started."""
    pool = pool or HashingPool(2, 100, patience=60)
    return AccessControl(loaded_policy(), PasswordVerifier(pool, pool, 100, cost), KnownClientIds(), lambda *_: None)


def sign_ins(known: AccessControl | None = None) -> SignIns:
    return SignIns(known or access(), PER_MINUTE, slots=8, failures=FailedSignIns(), second_factors=SecondFactors(None))


def outcome(signing_in: SignIns, username: str, password: str, address: str | None = HERE) -> str:
    try:
        signed_in = signing_in.with_password(username, password, address)
    except Unauthenticated:
        return WRONG
    except TooMany as error:
        return REFUSED if 0 < error.retry_after <= 60 else "refused for too long"
    return IN if signed_in.user.username == username else "somebody else"


def guess_until_refused(signing_in: SignIns, username: str, addresses: list[str]) -> list[str]:
    return [outcome(signing_in, username, f"guess {number}", address) for number, address in enumerate(addresses)]


def from_elsewhere(count: int) -> list[str]:
    return [f"198.51.100.{number}" for number in range(count)]


def test_sixty_addresses_are_limited_for_one_name() -> None:
    create_bob()
    found = guess_until_refused(sign_ins(), "bob", from_elsewhere(60))
    assert found == [WRONG] * PER_MINUTE * TIMES_PER_NAME + [REFUSED] * (60 - PER_MINUTE * TIMES_PER_NAME)


def test_sixty_names_are_limited_from_one_address() -> None:
    create_bob()
    signing_in = sign_ins()
    found = [outcome(signing_in, f"name-{number}", "guess") for number in range(60)]
    assert found == [WRONG] * PER_MINUTE * TIMES_PER_NETWORK + [REFUSED] * (60 - PER_MINUTE * TIMES_PER_NETWORK)
    assert outcome(signing_in, "bob", BOBS_PASSWORD) == REFUSED
    assert outcome(signing_in, "bob", BOBS_PASSWORD, "203.0.113.9") == IN


def test_one_address_is_limited_for_one_name() -> None:
    create_bob()
    signing_in = sign_ins()
    assert guess_until_refused(signing_in, "bob", [HERE] * 6) == [WRONG] * PER_MINUTE + [REFUSED] * 3
    assert outcome(signing_in, "bob", BOBS_PASSWORD) == REFUSED
    assert outcome(signing_in, "bob", BOBS_PASSWORD, "203.0.113.9") == IN


@pytest.mark.parametrize(
    "addresses",
    [
        [f"2001:db8:0:1::{number:x}" for number in range(1, 7)],
        [f"2001:db8:0:1:{number:x}:ffff:0:1" for number in range(1, 7)],
        ["192.0.2.7", "::ffff:192.0.2.7", "::FFFF:c000:207"] * 2,
        [None, ""] * 3,
    ],
)
def test_addresses_of_one_network_count_as_one(addresses: list[str]) -> None:
    create_bob()
    assert guess_until_refused(sign_ins(), "bob", addresses) == [WRONG] * PER_MINUTE + [REFUSED] * 3


@pytest.mark.parametrize(("home", "beside"), [(HERE, HERE), ("2001:db8:0:7::1", "2001:db8:0:7:aaaa::2")])
def test_owner_of_an_attacked_name_can_sign_in_only_from_a_known_network(home: str, beside: str) -> None:
    create_bob()
    assert outcome(sign_ins(), "bob", BOBS_PASSWORD, home) == IN
    assert REFUSED in guess_until_refused(sign_ins(), "bob", from_elsewhere(20))
    assert outcome(sign_ins(), "bob", BOBS_PASSWORD, beside) == IN
    assert outcome(sign_ins(), "bob", BOBS_PASSWORD, "203.0.113.9") == REFUSED


def test_known_network_is_held_to_the_limit_of_network_and_name() -> None:
    create_bob()
    assert outcome(sign_ins(), "bob", BOBS_PASSWORD) == IN
    assert guess_until_refused(sign_ins(), "bob", [HERE] * 5) == [WRONG] * PER_MINUTE + [REFUSED] * 2
    assert outcome(sign_ins(), "bob", BOBS_PASSWORD) == REFUSED


def test_network_is_known_only_for_the_name_that_signed_in() -> None:
    create_bob()
    create_user("bertha")
    assert outcome(sign_ins(), "bertha", BOBS_PASSWORD) == IN
    guess_until_refused(sign_ins(), "bob", from_elsewhere(20))
    assert outcome(sign_ins(), "bob", BOBS_PASSWORD) == REFUSED


def test_wrong_passwords_make_no_network_known() -> None:
    create_bob()
    signing_in = sign_ins()
    outcome(signing_in, "bob", "wrong")
    guess_until_refused(signing_in, "bob", from_elsewhere(20))
    assert outcome(signing_in, "bob", BOBS_PASSWORD) == REFUSED


def test_network_is_forgotten_after_ninety_days_without_a_sign_in() -> None:
    create_bob()
    now = datetime.now(UTC)
    with time_machine.travel(now - timedelta(days=89), tick=False):
        assert outcome(sign_ins(), "bob", BOBS_PASSWORD, "203.0.113.8") == IN
    with time_machine.travel(now - timedelta(days=91), tick=False):
        assert outcome(sign_ins(), "bob", BOBS_PASSWORD, "203.0.113.9") == IN
    guess_until_refused(sign_ins(), "bob", from_elsewhere(20))
    assert outcome(sign_ins(), "bob", BOBS_PASSWORD, "203.0.113.8") == IN
    assert outcome(sign_ins(), "bob", BOBS_PASSWORD, "203.0.113.9") == REFUSED
    passwords.delete_old()
    with session():
        assert [row.network for row in SignInAddress.select()] == ["203.0.113.8"]


def test_only_the_latest_networks_of_a_name_are_stored() -> None:
    create_bob()
    start = datetime.now(UTC)
    for number in range(MAX_NETWORKS + 5):
        with time_machine.travel(start + timedelta(seconds=number), tick=False):
            assert outcome(sign_ins(), "bob", BOBS_PASSWORD, f"198.51.100.{number}") == IN
    with session():
        kept = {row.network for row in SignInAddress.select()}
    assert kept == {f"198.51.100.{number}" for number in range(5, MAX_NETWORKS + 5)}


def test_signing_in_again_from_a_known_network_writes_nothing() -> None:
    create_bob()
    signing_in = sign_ins()
    assert outcome(signing_in, "bob", BOBS_PASSWORD) == IN
    before = all_rows()
    assert outcome(signing_in, "bob", BOBS_PASSWORD) == IN
    assert all_rows() == before


def test_attempts_beyond_the_limit_cost_no_write_and_no_hash() -> None:
    create_bob()
    pool = CountedPool(2, 100, patience=60)
    signing_in = sign_ins(access(pool))
    guess_until_refused(signing_in, "bob", from_elsewhere(20))
    before, hashes = all_rows(), pool.count
    assert set(guess_until_refused(signing_in, "bob", from_elsewhere(60))) == {REFUSED}
    assert (all_rows(), pool.count) == (before, hashes)


def test_two_processes_count_the_same_attempts() -> None:
    create_bob()
    one, another = sign_ins(), sign_ins()
    found = [outcome(signing_in, "bob", "wrong") for signing_in in (one, another, one, another)]
    assert found == [WRONG] * PER_MINUTE + [REFUSED]


@pytest.mark.parametrize("username", ["bob\0", "b\udc80b", "x" * 100_000, ""])
def test_attempts_with_an_invalid_name_are_counted(username: str) -> None:
    assert guess_until_refused(sign_ins(), username, [HERE] * 4) == [WRONG] * PER_MINUTE + [REFUSED]


# Duration of failures.


FAILURES = {
    "unknown name": ("nemo", "wrong"),
    "wrong password": ("bob", "wrong"),
    "password that was wrong before": ("bob", "wrong before"),
    "wrong password of a user that has signed in": ("alex", "wrong"),
    "overlong password": ("bob", "x" * 100),
    "disabled user": ("dora", BOBS_PASSWORD),
    "user without a password": ("nick", "wrong"),
    "user with an older, faster hash": ("olga", "wrong"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_every_failed_sign_in_costs_one_hash_and_at_least_the_same_time(failure: str) -> None:
    for name in ("bob", "alex", "dora", "olga"):
        create_user(name)
    create_user("nick", password=None)
    change_user("dora", enabled=False)
    cost, pool = 8, CountedPool(2, 100, patience=60)
    hasher = PasswordHasher(PasswordPolicy(), cost, HashingPool(1, 10, patience=60))
    for name in ("bob", "alex"):
        users.change(ALICE, name, {"password": BOBS_PASSWORD}, hasher)
    known = access(pool, cost)
    signing_in = SignIns(known, 100, slots=1, failures=FailedSignIns(), second_factors=SecondFactors(None))
    assert outcome(signing_in, "alex", BOBS_PASSWORD) == IN
    assert outcome(signing_in, "bob", "wrong before") == WRONG
    pool.count = 0
    started = monotonic()
    assert outcome(signing_in, *FAILURES[failure]) == WRONG
    assert monotonic() - started >= known.failure_seconds
    assert pool.count == 1
    hashing = min(measured(lambda: bcrypt.hashpw(b"a password", bcrypt.gensalt(cost)))[1] for _ in range(5))
    assert known.failure_seconds >= hashing, "less than a hash would show which names cost one"


def test_cached_password_takes_no_hash() -> None:
    create_bob()
    pool = CountedPool(2, 100, patience=60)
    signing_in = sign_ins(access(pool))
    assert outcome(signing_in, "bob", BOBS_PASSWORD) == IN
    assert pool.count == 1
    assert outcome(signing_in, "bob", BOBS_PASSWORD) == IN
    assert pool.count == 1


# Simultaneous sign-ins.


@contextmanager
def under_way(signing_in: SignIns, gate: GatedAccess, addresses: list[str]) -> Iterator[None]:
    """Keep sign-ins from these addresses waiting for their hash."""
    with ThreadPoolExecutor(len(addresses)) as pool:
        try:
            for address in addresses:
                pool.submit(outcome, signing_in, "bob", "guess", address)
            for _ in addresses:
                assert gate.entered.acquire(timeout=20)
            yield
        finally:
            gate.go_on.set()


def test_sign_ins_beyond_the_places_are_refused_and_known_networks_have_their_own() -> None:
    create_bob()
    policy = access()
    assert outcome(sign_ins(policy), "bob", BOBS_PASSWORD) == IN
    gate = GatedAccess(loaded_policy().snapshot.users["bob"])
    signing_in = SignIns(
        cast("AccessControl", gate), 100, slots=2, failures=FailedSignIns(), second_factors=SecondFactors(None)
    )
    with under_way(signing_in, gate, from_elsewhere(2)):
        with pytest.raises(Busy):
            signing_in.with_password("bob", BOBS_PASSWORD, "203.0.113.9")
        with under_way(signing_in, gate, [HERE, HERE]), pytest.raises(Busy):
            signing_in.with_password("bob", BOBS_PASSWORD, HERE)
    assert outcome(signing_in, "bob", BOBS_PASSWORD, "203.0.113.9") == IN
    assert gate.first == [False, False, True, True, False]


def test_sign_in_from_a_known_network_is_hashed_first() -> None:
    create_bob()
    assert outcome(sign_ins(), "bob", BOBS_PASSWORD) == IN
    pool, go_on, hashed = HashingPool(1, 1, patience=60), threading.Event(), []
    pool.submit(lambda: go_on.wait(20))
    signing_in = sign_ins(access(pool))
    with pytest.raises(Busy):
        signing_in.with_password("bob", BOBS_PASSWORD, "203.0.113.9")
    submit = pool.submit

    def submit_and_go_on(work: Callable[[], T], *, first: bool = False, estimate: float = 1.0) -> Future[T]:
        hashed.append(first)
        future = submit(work, first=first, estimate=estimate)
        go_on.set()
        return future

    pool.submit = submit_and_go_on  # type: ignore[method-assign]
    assert outcome(signing_in, "bob", BOBS_PASSWORD) == IN
    assert hashed == [True]


def test_places_are_free_again_after_failures() -> None:
    create_bob()
    signing_in = SignIns(access(), 100, slots=1, failures=FailedSignIns(), second_factors=SecondFactors(None))
    assert [outcome(signing_in, "bob", f"guess {number}") for number in range(3)] == [WRONG] * 3
    assert outcome(signing_in, "bob", BOBS_PASSWORD) == IN


@pytest.mark.parametrize(("wrong", "found"), [(PER_MINUTE, REFUSED), (PER_MINUTE - 1, IN)])
def test_right_password_among_simultaneous_attempts_is_refused_beyond_the_limit(wrong: int, found: str) -> None:
    create_bob()
    gate = GatedAccess(loaded_policy().snapshot.users["bob"])
    signing_in = sign_ins(cast("AccessControl", gate))
    beside = sign_ins()
    with ThreadPoolExecutor(1) as pool:
        right = pool.submit(outcome, signing_in, "bob", "right")
        assert gate.entered.acquire(timeout=20)
        assert guess_until_refused(beside, "bob", [HERE] * wrong) == [WRONG] * wrong
        gate.go_on.set()
        assert right.result(20) == found


def test_token_revoked_at_the_same_time_starts_no_session() -> None:
    create_user("alice")
    issued = api_tokens.issue_token(ALICE, "alice", "page", 1)
    with session():
        digest = Token.get_by_id(issued.record.id).digest
    api_tokens.revoke_token(ALICE, issued.record.id)
    with pytest.raises(Unauthenticated):
        browser_sessions.begin(
            replace(ALICE, proof=Proof(token_digest=digest)), How(Method.TOKEN), LIFETIME, "a browser"
        )
    with session():
        assert BrowserSession.select().count() == 0


@pytest.mark.parametrize(("method", "named"), [(Method.PASSWORD, True), (Method.LDAP, False)])
def test_set_up_with_http_basic_is_named_only_where_it_works(method: Method, named: bool) -> None:
    user = loaded_policy().snapshot.users["admin"]
    with pytest.raises(Unauthenticated, match="/admin/sign-in") as error:
        sign_ins().complete(SignIn(user, How(method), Proof(), Missing.ENROLMENT), Actor("admin", Via.API), "")
    assert ("HTTP Basic" in error.value.message) is named

"""Second factors on either database: codes used at the same time, and how secrets are stored."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from authsvc.accounts import users
from authsvc.accounts.sign_in import second_factor
from authsvc.accounts.sign_in.methods import Factor
from authsvc.accounts.sign_in.second_factor import SecondFactors
from authsvc.errors import Busy, Unauthenticated
from authsvc.policy.actors import Actor, Via
from authsvc.storage.changes import policy_change
from authsvc.storage.database import session
from authsvc.storage.models import RecoveryCode, SecondFactor
from tests.actors import ALICE, OPERATOR
from tests.authenticator import Authenticator
from tests.storage.environment import all_rows, create_bob, events

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("prepared")

BOB = Actor("bob", Via.API, ())
PASSPHRASE = "the passphrase of the authority's key"


def set_up(passphrase: str | None = None) -> tuple[SecondFactors, Authenticator, list[str]]:
    """Give bob a second factor."""
    create_bob()
    factors = SecondFactors(passphrase)
    app = Authenticator(factors.begin(BOB).secret)
    return factors, app, factors.confirm(BOB, app.next_code())


def results_of_five_at_once(check: Callable[[], Factor]) -> list[Factor | None]:
    together = threading.Barrier(5)

    def attempt(_number: int) -> Factor | None:
        together.wait(20)
        try:
            return check()
        except Unauthenticated:
            return None

    with ThreadPoolExecutor(5) as pool:
        return list(pool.map(attempt, range(5)))


def test_code_sent_five_times_at_once_is_accepted_once() -> None:
    factors, app, _ = set_up()
    code = app.next_code()
    results = results_of_five_at_once(lambda: factors.check(BOB, code))
    assert sorted(results, key=str) == [None] * 4 + [Factor.CODE]


def test_recovery_code_sent_five_times_at_once_is_accepted_once() -> None:
    factors, _, recovery_codes = set_up()
    results = results_of_five_at_once(lambda: factors.check(BOB, recovery_codes[0]))
    assert sorted(results, key=str) == [None] * 4 + [Factor.RECOVERY_CODE]
    assert second_factor.recovery_codes_left("bob") == 9


def test_other_replica_accepts_no_code_a_second_time() -> None:
    factors, app, _ = set_up()
    code = app.next_code()
    factors.check(BOB, code)
    with pytest.raises(Unauthenticated):
        SecondFactors(None).check(BOB, code)


def test_recovery_codes_are_stored_as_salted_hashes() -> None:
    _, _, recovery_codes = set_up()
    stored = repr(all_rows())
    assert not [code for code in recovery_codes if code in stored or code.replace("-", "") in stored]
    with session():
        assert len({row.salt for row in RecoveryCode.select()}) == 10


def test_secret_is_encrypted_with_the_passphrase() -> None:
    create_bob()
    factors = SecondFactors(PASSPHRASE)
    secret = factors.begin(BOB).secret
    assert secret not in repr(all_rows())
    begun = factors.begun("bob")
    assert begun
    assert begun.secret == secret
    with pytest.raises(Busy, match="AUTHSVC_CA_KEY_PASSPHRASE"):
        SecondFactors("another passphrase").begun("bob")


def test_next_start_with_a_passphrase_encrypts_stored_secrets() -> None:
    _, app, recovery_codes = set_up()
    with session():
        plain = SecondFactor.get().secret
    for _ in range(2):
        with policy_change():
            second_factor.encrypt_stored(PASSPHRASE)
    assert plain not in repr(all_rows())
    assert [event.action for event in events()].count("second-factor.encrypt") == 1
    assert SecondFactors(PASSPHRASE).check(BOB, app.next_code()) is Factor.CODE
    # Recovery codes help if the passphrase is lost too.
    assert SecondFactors(None).check(BOB, recovery_codes[0]) is Factor.RECOVERY_CODE


def test_removed_second_factor_leaves_nothing() -> None:
    set_up()
    second_factor.remove(OPERATOR, "bob")
    with session():
        assert SecondFactor.select().count() == RecoveryCode.select().count() == 0


def test_deleted_user_leaves_no_second_factor() -> None:
    set_up()
    users.delete(ALICE, "bob")
    with session():
        assert SecondFactor.select().count() == RecoveryCode.select().count() == 0


def test_audit_trail_names_no_secret_and_no_code() -> None:
    factors, app, recovery_codes = set_up()
    factors.check(BOB, recovery_codes[0])
    factors.remove_own(BOB, app.next_code())
    found = [event for event in events() if event.action.startswith("second-factor")]
    assert [event.action for event in found] == [
        "second-factor.set",
        "second-factor.recover",
        "second-factor.remove",
    ]
    assert [event.after for event in found] == [None, {"recoveryCodesLeft": 9}, None]

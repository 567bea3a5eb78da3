"""Requests that were authenticated just before their password, token or browser session ended."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from authsvc.accounts import api_tokens, browser_sessions, users
from authsvc.accounts.sign_in import own_account
from authsvc.accounts.sign_in.methods import How, Method
from authsvc.accounts.sign_in.passwords import SignIns
from authsvc.accounts.sign_in.second_factor import SecondFactors
from authsvc.activity.failed_sign_ins import FailedSignIns
from authsvc.credentials.hashing import HashingPool
from authsvc.credentials.passwords import PasswordVerifier
from authsvc.errors import InvalidInput, Unauthenticated
from authsvc.pki import csr
from authsvc.pki.authorities import SigningPolicy
from authsvc.policy.access import AccessControl
from authsvc.policy.actors import Actor, Proof, Via
from authsvc.policy.known_client_ids import KnownClientIds
from authsvc.policy.snapshot import GrantType
from authsvc.settings import Lifetime
from authsvc.storage.database import session
from authsvc.storage.models import BrowserSession, Certificate, Token
from tests.actors import ALICE, BOBS_PASSWORD, HASHER
from tests.registry.signing import signing_request
from tests.storage.environment import change_user, create_bob, create_user, events, loaded_policy

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("prepared")

LIFETIME = Lifetime(timedelta(minutes=30), timedelta(hours=12))
BOB = Actor("bob", Via.API, ())


def issue_token(actor: Actor) -> None:
    api_tokens.issue_token(actor, "bob", "", 12)


def begin_session(actor: Actor) -> None:
    browser_sessions.begin(actor, How(Method.PASSWORD), LIFETIME, "a browser")


def issue_certificate(actor: Actor) -> None:
    key = csr.read(signing_request("bob"), "bob").public_key
    users.issue_certificate(actor, "bob", key, SigningPolicy())


CREDENTIALS = pytest.mark.parametrize("issue", [issue_token, begin_session, issue_certificate])


def sign_ins() -> SignIns:
    """Return sign-ins that know the policy of this moment and no later one."""
    pool = HashingPool(2, 100, patience=60)
    access = AccessControl(loaded_policy(), PasswordVerifier(pool, pool, 100, 4), KnownClientIds(), lambda *_: None)
    return SignIns(access, 10, slots=8, failures=FailedSignIns(), second_factors=SecondFactors(None))


def signed_in_with_password() -> Actor:
    return replace(BOB, proof=sign_ins().with_password("bob", BOBS_PASSWORD, None).proof)


def credentials_of_bob() -> int:
    with session():
        return sum(model.select().count() for model in (Token, BrowserSession, Certificate))


@CREDENTIALS
def test_old_password_gives_no_credential_after_a_new_one_revoked_all(issue: Callable[[Actor], None]) -> None:
    create_bob(grant_types=frozenset({GrantType.PASSWORD, GrantType.CERTIFICATE}))
    bob = signed_in_with_password()
    users.change(ALICE, "bob", {"password": "another secret", "revoke_others": True}, HASHER)
    before = credentials_of_bob()
    with pytest.raises(Unauthenticated) as error:
        issue(bob)
    assert error.value.code == "wrong-credentials"
    with session():
        assert Token.select().count() == BrowserSession.select().count() == 0
    assert credentials_of_bob() == before


@CREDENTIALS
def test_user_disabled_during_the_sign_in_gets_no_credential(issue: Callable[[Actor], None]) -> None:
    create_bob(grant_types=frozenset({GrantType.PASSWORD, GrantType.CERTIFICATE}))
    bob = signed_in_with_password()
    change_user("bob", enabled=False)
    with pytest.raises(Unauthenticated):
        issue(bob)
    assert credentials_of_bob() == 0


@CREDENTIALS
def test_user_disabled_during_a_sign_in_elsewhere_gets_no_credential(issue: Callable[[Actor], None]) -> None:
    create_bob(grant_types=frozenset({GrantType.PASSWORD, GrantType.CERTIFICATE}))
    confirmed = replace(BOB, proof=Proof())
    issue(confirmed)
    before = credentials_of_bob()
    change_user("bob", enabled=False)
    with pytest.raises(Unauthenticated) as error:
        issue(confirmed)
    assert error.value.code == "user-disabled"
    assert credentials_of_bob() <= before


def test_password_set_during_the_change_of_the_own_one_stays() -> None:
    create_bob()
    earlier = sign_ins()
    users.change(ALICE, "bob", {"password": "set by alice"}, HASHER)
    with pytest.raises(InvalidInput):
        own_account.change_password(earlier, BOB, BOBS_PASSWORD, "set by a thief", HASHER)
    assert sign_ins().with_password("bob", "set by alice", None).user.username == "bob"


@CREDENTIALS
def test_password_that_still_holds_gives_credentials(issue: Callable[[Actor], None]) -> None:
    create_bob(grant_types=frozenset({GrantType.PASSWORD, GrantType.CERTIFICATE}))
    bob = signed_in_with_password()
    change_user("bob", permissions=())
    issue(bob)
    assert credentials_of_bob() == 1


@CREDENTIALS
def test_revoked_token_gives_no_further_credential(issue: Callable[[Actor], None]) -> None:
    create_bob(grant_types=frozenset({GrantType.PASSWORD, GrantType.CERTIFICATE}))
    issued = api_tokens.issue_token(ALICE, "bob", "", 12)
    with session():
        digest = Token.get_by_id(issued.record.id).digest
    by_token = replace(BOB, proof=Proof(token_digest=digest))
    issue(by_token)
    before = credentials_of_bob()
    api_tokens.revoke_token(ALICE, issued.record.id)
    with pytest.raises(Unauthenticated) as error:
        issue(by_token)
    assert error.value.code == "invalid-token"
    assert credentials_of_bob() == before - 1


@CREDENTIALS
def test_ended_browser_session_gives_no_further_credential(issue: Callable[[Actor], None]) -> None:
    create_bob(grant_types=frozenset({GrantType.PASSWORD, GrantType.CERTIFICATE}))
    secret = browser_sessions.begin(BOB, How(Method.PASSWORD), LIFETIME, "a browser")
    by_session = replace(BOB, proof=browser_sessions.proof_of(secret))
    issue(by_session)
    browser_sessions.sign_out(BOB, secret)
    before = credentials_of_bob()
    with pytest.raises(Unauthenticated):
        issue(by_session)
    assert credentials_of_bob() == before


def test_replaced_session_is_ended_by_its_own_user_in_the_audit_trail() -> None:
    create_bob()
    create_user("eve")
    secret = browser_sessions.begin(BOB, How(Method.PASSWORD), LIFETIME, "a browser")
    browser_sessions.sign_out(replace(BOB, username="eve"), secret)
    ended = events()[-1]
    assert (ended.action, ended.actor) == ("session.end", "bob")
    assert (ended.before, ended.after) == ({"username": "bob"}, {"replacedBy": "eve"})
    again = browser_sessions.begin(BOB, How(Method.PASSWORD), LIFETIME, "a browser")
    browser_sessions.sign_out(BOB, again)
    assert (events()[-1].actor, events()[-1].after) == ("bob", None)

"""Users with password hashes of other systems, and what their replacement leaves alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from authsvc.accounts import users
from authsvc.credentials.password_hashes import rehash
from authsvc.credentials.rehashing import Rehashed
from authsvc.policy.actors import Actor, Proof, Via
from authsvc.policy.snapshot import GrantType
from authsvc.storage.database import session
from authsvc.storage.models import DisconnectOrder, User
from tests.actors import ALICE
from tests.rules.test_password_hashes import MOSQUITTO_PBKDF2
from tests.storage.environment import change_user, events, policy_of
from tests.storage.test_ended_credentials import begin_session

pytestmark = pytest.mark.usefixtures("prepared")


@pytest.fixture
def bob() -> users.UserRecord:
    wanted: users.UserChanges = {"grant_types": frozenset({GrantType.PASSWORD})}
    return users.create_with_hash(ALICE, "bob", wanted, MOSQUITTO_PBKDF2)


def replace_bobs_hash() -> str:
    replacement = rehash(MOSQUITTO_PBKDF2, b"secret", 4)
    users.replace_hashes([Rehashed("bob", MOSQUITTO_PBKDF2, replacement)])
    return replacement


def stored_hash() -> str | None:
    with session():
        found: str | None = User.get(User.username == "bob").password_hash
    return found


def test_replaced_hash_leaves_version_credential_and_audit_trail_of_the_user(bob: users.UserRecord) -> None:
    before, recorded = policy_of("bob"), len(events())
    replacement = replace_bobs_hash()
    after = policy_of("bob")
    assert stored_hash() == after.password_hash == replacement
    assert after.credentials_at(bob.created_at) == before.credentials_at(bob.created_at)
    assert users.get("bob").version == bob.version
    assert len(events()) == recorded
    with session():
        assert not DisconnectOrder.select().exists()


def test_new_password_is_not_replaced_and_is_another_credential(bob: users.UserRecord) -> None:
    before = policy_of("bob")
    change_user("bob", password="bob's next secret")
    set_by_bob = stored_hash()
    replace_bobs_hash()
    assert stored_hash() == set_by_bob
    assert policy_of("bob").credentials_at(bob.created_at) != before.credentials_at(bob.created_at)


def test_sign_in_that_began_before_the_replacement_is_valid_after_it(bob: users.UserRecord) -> None:
    actor = replace(Actor("bob", Via.PAGE, ()), proof=Proof(password_hash=MOSQUITTO_PBKDF2))
    replace_bobs_hash()
    begin_session(actor)

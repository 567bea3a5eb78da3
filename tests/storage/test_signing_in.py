"""Signing in while something else happens."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from authsvc import browser_sessions, logins, throttle
from authsvc.errors import TooMany, Unauthenticated
from authsvc.settings import Lifetime
from authsvc.storage.database import session
from authsvc.storage.models import BrowserSession, Token
from tests.people import ALICE
from tests.storage.scene import loaded_policy, make_user

if TYPE_CHECKING:
    from authsvc.access import AccessControl
    from authsvc.decision import Denied
    from authsvc.snapshot import UserPolicy

pytestmark = pytest.mark.usefixtures("prepared")

LIMIT = logins.Guesses("192.0.2.7", 3)
LIFETIME = Lifetime(timedelta(minutes=30), timedelta(hours=12))


class SlowCheck:
    """A check of the right password, during which others were found wrong."""

    def __init__(self, user: UserPolicy, wrong: int) -> None:
        self._user, self._wrong = user, wrong

    def holder_of_password(self, username: str, _password: str) -> UserPolicy | Denied:
        for _ in range(self._wrong):
            throttle.count(LIMIT.key(username), LIMIT.per_minute)
        return self._user


def access_after(wrong: int) -> AccessControl:
    make_user("bob")
    return SlowCheck(loaded_policy().snapshot.users["bob"], wrong)  # type: ignore[return-value]


def test_the_right_one_of_many_that_are_guessed_side_by_side_is_refused_too() -> None:
    with pytest.raises(TooMany):
        logins.check_password(access_after(LIMIT.per_minute), "bob", "right", LIMIT)


def test_a_few_wrong_ones_beside_it_do_not_keep_the_right_one_out() -> None:
    assert logins.check_password(access_after(LIMIT.per_minute - 1), "bob", "right", LIMIT).username == "bob"


def test_a_token_that_is_revoked_in_this_very_moment_begins_no_session() -> None:
    make_user("alice")
    issued = logins.issue_token(ALICE, "alice", "page", 1)
    with session():
        digest = Token.get_by_id(issued.record.id).digest
    logins.revoke_token(ALICE, issued.record.id)
    with pytest.raises(Unauthenticated):
        browser_sessions.begin(ALICE, LIFETIME, "a browser", digest)
    with session():
        assert BrowserSession.select().count() == 0

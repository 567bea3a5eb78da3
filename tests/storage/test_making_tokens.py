"""Issuing API tokens: limits, and the token version that announces them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NoReturn

import pytest
import time_machine

from authsvc.accounts import api_tokens, users
from authsvc.errors import Conflict, Forbidden, InvalidInput, TooMany
from tests.actors import ALICE, CHARLIE, OPERATOR, http
from tests.storage.environment import (
    all_rows,
    change_user,
    create_bob,
    create_user,
    execute,
    loaded_policy,
    version,
    versions,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from authsvc.policy.actors import Actor

pytestmark = pytest.mark.usefixtures("prepared")

NOW = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)


def test_new_token_keeps_the_policy_version() -> None:
    create_bob()
    before = version()
    api_tokens.issue_token(ALICE, "bob", "", 12)
    users.issue_token(ALICE, "bob", "", 12)
    assert version() == before


def test_catch_up_reads_only_the_new_token() -> None:
    create_bob()
    create_user("bertha")
    known = loaded_policy()
    bertha, permissions = known.snapshot.users["bertha"], known.snapshot.users["bob"].permissions
    issued = api_tokens.issue_token(ALICE, "bob", "", 12)
    known.catch_up()
    assert known.snapshot == loaded_policy().snapshot
    assert list(known.snapshot.users["bob"].tokens.values()) == [issued.record.expires_at]
    assert known.snapshot.users["bertha"] is bertha
    assert known.snapshot.users["bob"].permissions is permissions


def test_tokens_and_policy_changes_are_read_together() -> None:
    create_bob()
    known = loaded_policy()
    first = api_tokens.issue_token(ALICE, "bob", "", 12)
    change_user("bob", enabled=False)
    create_user("bertha")
    api_tokens.issue_token(ALICE, "bertha", "", 12)
    api_tokens.revoke_token(ALICE, first.record.id)
    api_tokens.issue_token(ALICE, "bob", "", 12)
    users.delete(ALICE, "bertha")
    known.catch_up()
    assert known.snapshot == loaded_policy().snapshot
    assert len(known.snapshot.users["bob"].tokens) == 1


def test_revoked_token_is_removed_by_the_next_catch_up() -> None:
    create_bob()
    known = loaded_policy()
    issued = api_tokens.issue_token(ALICE, "bob", "", 12)
    known.catch_up()
    api_tokens.revoke_token(ALICE, issued.record.id)
    known.catch_up()
    assert known.snapshot.users["bob"].tokens == {}


def test_expired_tokens_leave_memory_when_new_ones_are_issued() -> None:
    create_bob()
    with time_machine.travel(NOW, tick=False):
        known = loaded_policy()
        api_tokens.issue_token(ALICE, "bob", "", 1)
        known.catch_up()
    with time_machine.travel(NOW + timedelta(hours=2), tick=False):
        later = api_tokens.issue_token(ALICE, "bob", "", 1)
        known.catch_up()
        assert list(known.snapshot.users["bob"].tokens.values()) == [later.record.expires_at]


def test_database_with_an_older_token_version_is_read_completely() -> None:
    create_bob()
    known = loaded_policy()
    api_tokens.issue_token(ALICE, "bob", "", 12)
    known.catch_up()
    execute("DELETE FROM tokens")
    execute("UPDATE policy_version SET token_version = 0")
    known.catch_up()
    assert known.snapshot == loaded_policy().snapshot
    assert known.snapshot.users["bob"].tokens == {}


def test_user_has_at_most_100_tokens() -> None:
    create_bob()
    create_user("bertha")
    for _ in range(api_tokens.MAX_TOKENS):
        issued = api_tokens.issue_token(OPERATOR, "bob", "", 12)
    for actor in (ALICE, OPERATOR):
        before = all_rows()
        with pytest.raises(Conflict, match="100 tokens") as error:
            users.issue_token(actor, "bob", "", 12)
        assert error.value.code == "too-many-tokens"
        assert {**all_rows(), "Attempt": []} == {**before, "Attempt": []}
    api_tokens.issue_token(OPERATOR, "bertha", "", 12)
    api_tokens.revoke_token(OPERATOR, issued.record.id)
    api_tokens.issue_token(OPERATOR, "bob", "", 12)


def test_refusals_at_the_token_limit_are_throttled_before_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    create_bob()
    for _ in range(api_tokens.MAX_TOKENS):
        api_tokens.issue_token(OPERATOR, "bob", "", 12)

    def no_change() -> NoReturn:
        pytest.fail("a refused token began a change")

    monkeypatch.setattr(api_tokens, "token_change", no_change)
    limits = api_tokens.TokenLimits(per_minute=3)
    for issue in (api_tokens.issue_token, users.issue_token, api_tokens.issue_token):
        with pytest.raises(Conflict):
            issue(ALICE, "bob", "", 12, limits)
    before = all_rows()
    for issue in (api_tokens.issue_token, users.issue_token):
        with pytest.raises(TooMany):
            issue(ALICE, "bob", "", 12, limits)
    assert all_rows() == before


@pytest.mark.parametrize("issue", [api_tokens.issue_token, users.issue_token])
def test_new_token_raises_the_token_version_by_one(issue: Callable[..., api_tokens.IssuedToken]) -> None:
    create_bob()
    before = versions()
    issue(ALICE, "bob", "", 12)
    assert versions() == before._replace(tokens=before.tokens + 1)


def test_expired_tokens_do_not_count() -> None:
    create_bob()
    with time_machine.travel(NOW, tick=False):
        for _ in range(api_tokens.MAX_TOKENS):
            api_tokens.issue_token(OPERATOR, "bob", "", 1)
    with time_machine.travel(NOW + timedelta(hours=1), tick=False):
        api_tokens.issue_token(OPERATOR, "bob", "", 1)


def test_tokens_issued_at_once_do_not_exceed_the_limit() -> None:
    create_bob()
    for _ in range(api_tokens.MAX_TOKENS - 2):
        api_tokens.issue_token(OPERATOR, "bob", "", 12)

    def one_more(_number: int) -> bool:
        try:
            api_tokens.issue_token(OPERATOR, "bob", "", 12)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(one_more, range(6))) == [False] * 4 + [True] * 2


def test_issuing_tokens_is_throttled_per_user() -> None:
    create_bob()
    create_user("bertha")
    limits = api_tokens.TokenLimits(per_minute=3)
    for _ in range(3):
        users.issue_token(ALICE, "bob", "", 12, limits)
    before = all_rows()
    with pytest.raises(TooMany) as error:
        users.issue_token(ALICE, "bob", "", 12, limits)
    assert 0 < error.value.retry_after <= 60
    assert all_rows() == before
    users.issue_token(ALICE, "bertha", "", 12, limits)
    api_tokens.issue_token(OPERATOR, "bob", "", 12, limits)


def test_refused_token_does_not_count_against_the_minute() -> None:
    create_bob()
    create_user("alex", permissions=(http("readWrite", "/#"),))
    limits = api_tokens.TokenLimits(per_minute=1)
    with pytest.raises(Forbidden):
        users.issue_token(CHARLIE, "alex", "", 12, limits)
    users.issue_token(ALICE, "alex", "", 12, limits)


@pytest.mark.parametrize("actor", [ALICE, OPERATOR])
def test_token_longer_than_the_policy_allows_is_refused(actor: Actor) -> None:
    create_bob()
    limits = api_tokens.TokenLimits(max_days=90)
    api_tokens.issue_token(actor, "bob", "", 90 * 24, limits)
    before = all_rows()
    with pytest.raises(InvalidInput, match="2160 hours") as error:
        api_tokens.issue_token(actor, "bob", "", 90 * 24 + 0.5, limits)
    assert [one.field for one in error.value.errors] == ["expireTimeInHours"]
    assert all_rows() == before

"""API tokens and the keys that sign them, from issue to revocation."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
import time_machine

from authsvc.accounts import api_tokens, signing_keys
from authsvc.credentials import jwt
from authsvc.errors import NotFound
from authsvc.storage.database import session
from authsvc.storage.models import SigningKeyRow, Token
from tests.actors import ALICE, OPERATOR
from tests.storage.environment import all_rows, create_bob, create_user, loaded_policy, policy_of, version

pytestmark = pytest.mark.usefixtures("prepared")

NOW = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)


def digest_of(token: str, now: datetime = NOW) -> str:
    return jwt.verify(token, loaded_policy().snapshot.signing_keys, now).digest


def test_token_identifies_its_user_until_it_expires() -> None:
    create_bob()
    with time_machine.travel(NOW, tick=False):
        issued = api_tokens.issue_token(ALICE, "bob", "on the wall", 12)
        policy = policy_of("bob")
        claims = jwt.verify(issued.token, loaded_policy().snapshot.signing_keys, NOW)
    assert (claims.username, claims.expires_at) == ("bob", NOW + timedelta(hours=12))
    assert policy.tokens == {claims.digest: NOW + timedelta(hours=12)}
    assert (issued.record.username, issued.record.label) == ("bob", "on the wall")
    assert (issued.record.created_at, issued.record.expires_at) == (NOW, NOW + timedelta(hours=12))
    assert issued.record.last_used_at is None


@pytest.mark.parametrize("hours", [99_999, api_tokens.MAX_HOURS])
def test_token_can_last_for_the_longest_duration(hours: int) -> None:
    create_bob()
    issued = api_tokens.issue_token(ALICE, "bob", "", hours)
    almost = issued.record.expires_at - timedelta(seconds=1)
    assert issued.record.expires_at - issued.record.created_at == timedelta(hours=hours)
    assert digest_of(issued.token, almost)


def test_record_has_the_expiry_of_its_token() -> None:
    create_bob()
    issued = api_tokens.issue_token(ALICE, "bob", "", 0.0005)
    claims = jwt.verify(issued.token, loaded_policy().snapshot.signing_keys, issued.record.created_at)
    assert issued.record.expires_at == claims.expires_at


def test_database_does_not_store_the_token() -> None:
    create_bob()
    issued = api_tokens.issue_token(ALICE, "bob", "", 12)
    stored = repr(all_rows())
    assert issued.token not in stored
    for part in issued.token.split("."):
        assert part not in stored
    assert issued.token not in repr(issued)


def test_expired_token_is_not_loaded() -> None:
    create_bob()
    with time_machine.travel(NOW, tick=False):
        api_tokens.issue_token(ALICE, "bob", "", 1)
    with time_machine.travel(NOW + timedelta(hours=1), tick=False):
        policy = policy_of("bob")
    assert policy.tokens == {}


def test_revoking_a_token_leaves_the_others_valid() -> None:
    create_bob()
    first, second = (api_tokens.issue_token(ALICE, "bob", label, 12) for label in ("first", "second"))
    api_tokens.revoke_token(ALICE, first.record.id)
    assert [token.label for token in api_tokens.list_tokens("bob", "", 1, 10).items] == ["second"]
    policy = policy_of("bob")
    assert set(policy.tokens) == {digest_of(second.token)}


@pytest.mark.parametrize("token_id", ["", "0" * 32, "%", "x" * 500])
def test_revoking_an_unknown_token_raises_not_found(token_id: str) -> None:
    before = all_rows()
    with pytest.raises(NotFound) as error:
        api_tokens.revoke_token(ALICE, token_id)
    assert error.value.code == "token-not-found"
    assert all_rows() == before


def test_tokens_are_listed_newest_first_and_filtered_by_user_and_label() -> None:
    create_bob()
    create_user("bertha")
    for hour, (username, label) in enumerate([("bob", "wall"), ("bertha", "wallet"), ("bob", "100%")]):
        with time_machine.travel(NOW + timedelta(hours=hour), tick=False):
            api_tokens.issue_token(ALICE, username, label, 12)

    def labels(username: str, text: str, page: int = 1, per_page: int = 10) -> list[str]:
        return [token.label for token in api_tokens.list_tokens(username, text, page, per_page).items]

    assert labels("", "") == ["100%", "wallet", "wall"]
    assert labels("bob", "") == ["100%", "wall"]
    assert labels("", "WALL") == ["wallet", "wall"]
    assert labels("", "bert") == ["wallet"]
    assert labels("", "0%") == ["100%"]
    assert labels("", "l%") == []
    assert labels("charlie", "") == []
    assert labels("", "", page=2, per_page=2) == ["wall"]
    assert api_tokens.list_tokens("", "", 2, 2).total == 3


def test_token_uses_are_stored_once() -> None:
    create_bob()
    used, unused = (api_tokens.issue_token(ALICE, "bob", label, 12) for label in ("used", "unused"))
    uses = {digest_of(used.token): NOW, "digest of a token since revoked": NOW}
    before = version()
    api_tokens.store_uses(uses)
    assert uses == {}
    assert version() == before
    listed = {token.id: token.last_used_at for token in api_tokens.list_tokens("bob", "", 1, 10).items}
    assert listed == {used.record.id: NOW, unused.record.id: None}


def test_time_in_another_zone_is_stored_as_utc() -> None:
    create_bob()
    issued = api_tokens.issue_token(ALICE, "bob", "", 12)
    api_tokens.store_uses({digest_of(issued.token): NOW.astimezone(timezone(timedelta(hours=2)))})
    (listed,) = api_tokens.list_tokens("bob", "", 1, 10).items
    assert listed.last_used_at == NOW


class UsedDuringStore(dict[str, datetime]):
    """Token uses with another use between the write of the first one and its removal."""

    def get(self, key: str, default: datetime | None = None) -> datetime | None:  # type: ignore[override]
        self[key] = NOW + timedelta(seconds=1)
        return super().get(key, default)


def test_token_use_noted_during_a_write_is_kept() -> None:
    uses = UsedDuringStore({"digest": NOW})
    api_tokens.store_uses(uses)
    assert uses == {"digest": NOW + timedelta(seconds=1)}


def test_only_tokens_expired_for_over_a_day_are_deleted() -> None:
    create_bob()
    for label, age in (("long ago", 26), ("yesterday", 24), ("an hour ago", 2)):
        with time_machine.travel(NOW - timedelta(hours=age), tick=False):
            api_tokens.issue_token(ALICE, "bob", label, 1)
    with time_machine.travel(NOW, tick=False):
        api_tokens.issue_token(ALICE, "bob", "now", 1)
        assert api_tokens.delete_expired() == 1
        assert api_tokens.delete_expired() == 0
    assert [token.label for token in api_tokens.list_tokens("bob", "", 1, 10).items] == [
        "now",
        "an hour ago",
        "yesterday",
    ]


def test_tokens_stay_valid_after_signing_key_rotation() -> None:
    create_bob()
    old = api_tokens.issue_token(ALICE, "bob", "", 12)
    kid = signing_keys.rotate(OPERATOR)
    new = api_tokens.issue_token(ALICE, "bob", "", 12)
    keys = loaded_policy().snapshot.signing_keys
    assert list(keys)[-1] == kid
    assert len(keys) == 2
    now = datetime.now(UTC)
    assert jwt.verify(old.token, keys, now).username == "bob"
    assert jwt.verify(new.token, {kid: keys[kid]}, now).username == "bob"


def test_first_start_creates_a_signing_key_of_32_bytes() -> None:
    assert signing_keys.exist()
    (key,) = loaded_policy().snapshot.signing_keys.values()
    assert len(key.secret) == 32
    with session():
        assert not Token.select().exists()
        SigningKeyRow.delete().execute()
        assert not signing_keys.exist()

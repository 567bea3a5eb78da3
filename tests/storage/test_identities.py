"""Users of a provider or directory: how long their API tokens and sessions last, and what belongs to whom."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from authsvc.accounts import api_tokens, bootstrap, browser_sessions, last_admin, roles, users
from authsvc.accounts.sign_in.methods import How, Method
from authsvc.accounts.users import Origin
from authsvc.errors import Conflict, InvalidInput
from authsvc.identity.admission import admit
from authsvc.identity.confirmed import ConfirmedIdentity
from authsvc.policy.actors import SERVICE
from authsvc.settings import Lifetime
from authsvc.storage.database import session
from authsvc.storage.models import BrowserSession
from tests.actors import HASHER
from tests.storage.environment import loaded_policy, policy_of

pytestmark = pytest.mark.usefixtures("prepared")
EVE = ConfirmedIdentity(Origin.OIDC, "https://sso.example", "42", "eve", ("admin",), timedelta(days=30))


def test_api_token_ends_when_the_user_is_not_confirmed_for_too_long() -> None:
    admit(EVE, None)
    token = api_tokens.issue_token(SERVICE, "eve", "", 24 * 365).record
    (until,) = policy_of("eve").tokens.values()
    assert timedelta(days=29) < until - datetime.now(UTC) <= timedelta(days=30)
    assert token.expires_at == until == listed_end()
    admit(EVE._replace(lasts=timedelta(days=60)), None)
    (until,) = policy_of("eve").tokens.values()
    assert until - datetime.now(UTC) > timedelta(days=59)
    assert listed_end() == until


def listed_end() -> datetime:
    """Return when the only API token of Eve ends, as its list says."""
    (listed,) = api_tokens.list_tokens("eve", "", 1, 10).items
    return listed.expires_at


def test_same_roles_in_another_order_are_no_change() -> None:
    roles.create(SERVICE, "Viewer", "", ())
    both = EVE._replace(roles=("Viewer", "admin"))
    admit(both, None)
    before = users.get("eve").version
    admit(both._replace(roles=("admin", "Viewer")), None)
    assert users.get("eve").version == before


def test_new_api_token_ends_with_the_confirmation_in_a_running_process_too() -> None:
    admit(EVE, None)
    policy = loaded_policy()
    api_tokens.issue_token(SERVICE, "eve", "", 24 * 365)
    policy.catch_up()
    (until,) = policy.snapshot.users["eve"].tokens.values()
    assert until - datetime.now(UTC) <= timedelta(days=30)


def test_browser_session_lasts_no_longer_than_the_confirmation() -> None:
    admit(EVE._replace(lasts=timedelta(hours=1)), None)
    lifetime = Lifetime(timedelta(hours=2), timedelta(hours=12))
    browser_sessions.begin(replace(SERVICE, username="eve"), How(Method.OIDC), lifetime, "a browser", "an ID token")
    with session():
        row = BrowserSession.get()
    assert row.expires_at - row.created_at <= timedelta(hours=1)
    assert row.id_token == "an ID token"


def test_role_of_a_group_and_the_same_role_given_here_are_two() -> None:
    admit(EVE, None)
    users.change(SERVICE, "eve", {"roles": ("admin", "minimum-access")}, HASHER)
    assert policy_of("eve").roles == ("admin", "minimum-access")
    assert roles.count_holders(["admin"])["admin"] == 2
    admit(EVE._replace(roles=("minimum-access",)), None)
    eve = users.get("eve")
    assert (eve.roles, eve.group_roles, eve.all_roles) == (
        ("admin", "minimum-access"),
        ("minimum-access",),
        ("admin", "minimum-access"),
    )
    users.change(SERVICE, "eve", {"roles": ()}, HASHER)
    assert policy_of("eve").roles == ("minimum-access",)


def test_role_that_does_not_exist_lets_nobody_in() -> None:
    with pytest.raises(Conflict) as error:
        admit(EVE._replace(roles=("admin", "forgotten")), None)
    assert error.value.code == "role-missing"
    assert not users.exists("eve")


def test_administrator_of_a_provider_does_not_replace_the_last_local_one() -> None:
    admit(EVE, None)
    with pytest.raises(Conflict) as error:
        users.change(SERVICE, bootstrap.ADMINISTRATOR, {"enabled": False}, HASHER)
    assert error.value.code == "last-administrator"
    assert last_admin.ROLE in users.get("eve").group_roles


def test_same_subject_of_another_issuer_is_another_user() -> None:
    admit(EVE, None)
    with pytest.raises(Conflict) as error:
        admit(EVE._replace(issuer="https://other.example"), None)
    assert error.value.code == "username-taken"
    assert admit(EVE._replace(issuer="https://other.example", username="other-eve"), None) == "other-eve"


def test_user_of_a_provider_gets_no_password() -> None:
    admit(EVE, None)
    with pytest.raises(InvalidInput):
        users.change(SERVICE, "eve", {"password": "a long secret"}, HASHER)


def test_deleted_user_is_created_again_with_its_groups_only() -> None:
    admit(EVE, None)
    users.change(SERVICE, "eve", {"roles": ("minimum-access",)}, HASHER)
    users.delete(SERVICE, "eve")
    admit(EVE, None)
    assert (users.get("eve").roles, users.get("eve").group_roles) == ((), ("admin",))

"""Filters and sorting of the lists of users, audit events and connected clients."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import time_machine

from authsvc.accounts import api_tokens, browser_sessions, users
from authsvc.accounts.sign_in.methods import How, Method
from authsvc.accounts.users import UserFilter
from authsvc.activity import audit, last_seen, live_clients
from authsvc.activity.audit import AuditFilter
from authsvc.activity.live_clients import LiveClientFilter
from authsvc.policy.actors import Actor, Via
from authsvc.policy.snapshot import GrantType
from authsvc.settings import Lifetime
from authsvc.storage.database import session, transaction
from authsvc.storage.models import Token, User
from tests.actors import ALICE
from tests.live_clients import BOOT, SINCE, connected, report
from tests.storage.environment import create_user, events

if TYPE_CHECKING:
    from authsvc.accounts.users import Sort
    from authsvc.activity.live_clients import ClientSort
    from authsvc.settings import Settings

pytestmark = pytest.mark.usefixtures("prepared")

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
LIFETIME = Lifetime(idle=HOUR, absolute=HOUR)


def names(wanted: UserFilter, sort: Sort = "username") -> list[str]:
    """Return the users of the first page, without the built-in administrator."""
    found = users.search(wanted, 1, 50, sort)
    assert found.total == len(found.items)
    return [user.username for user in found.items if user.username != "admin"]


def seen() -> dict[str, datetime | None]:
    """Return when each user was last seen, without the built-in administrator."""
    return {
        user.username: user.last_seen for user in users.search(UserFilter(), 1, 50).items if user.username != "admin"
    }


def see(username: str, at: datetime) -> None:
    with transaction():
        last_seen.record([username], at)


@pytest.fixture
def three_users(prepared: Settings) -> None:
    create_user("press", grant_types=frozenset({GrantType.PASSWORD}))
    create_user("lamp", grant_types=frozenset({GrantType.CERTIFICATE, GrantType.TOKEN}), enabled=False)
    create_user("gate", grant_types=frozenset(GrantType))


@pytest.mark.usefixtures("three_users")
@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"enabled": True}, ["gate", "press"]),
        ({"enabled": False}, ["lamp"]),
        ({"grant_type": GrantType.PASSWORD}, ["gate", "press"]),
        ({"grant_type": GrantType.CERTIFICATE}, ["gate", "lamp"]),
        ({"grant_type": GrantType.TOKEN, "enabled": True}, ["gate"]),
        ({"grant_type": GrantType.TOKEN, "text": "RE"}, []),
    ],
)
def test_users_are_filtered_by_status_and_grant_type(wanted: dict[str, Any], expected: list[str]) -> None:
    assert names(UserFilter(**wanted)) == expected


@pytest.mark.usefixtures("three_users")
def test_users_are_filtered_and_sorted_by_when_they_were_last_seen() -> None:
    see("press", NOON - HOUR)
    see("press", NOON)
    see("press", NOON - HOUR)
    see("lamp", NOON + HOUR)
    see("somebody-deleted", NOON)
    assert seen() == {"press": NOON, "lamp": NOON + HOUR, "gate": None}
    assert list(users.export(UserFilter())) == users.search(UserFilter(), 1, 50).items
    assert names(UserFilter(last_seen_after=NOON)) == ["lamp", "press"]
    assert names(UserFilter(last_seen_after=NOON + HOUR)) == ["lamp"]
    assert names(UserFilter(last_seen_before=NOON)) == ["gate"]
    assert names(UserFilter(last_seen_before=NOON + HOUR)) == ["gate", "press"]
    assert names(UserFilter(last_seen_before=NOON + HOUR, last_seen_after=NOON)) == ["press"]
    assert names(UserFilter(), "lastSeen") == ["gate", "press", "lamp"]
    assert names(UserFilter(), "-lastSeen") == ["lamp", "press", "gate"]


@pytest.mark.usefixtures("three_users")
def test_user_counts_as_seen_while_a_client_is_connected() -> None:
    report(connected(1, "press", since=NOON - 100 * HOUR))
    reported_at = seen()["press"]
    assert reported_at is not None
    with transaction():
        User.update(last_seen_at=NOON).execute()
    live_clients.record_seen()
    assert seen() == {"press": pytest.approx(reported_at, abs=HOUR), "lamp": NOON, "gate": NOON}


@pytest.mark.usefixtures("three_users")
def test_user_counts_as_seen_when_a_token_or_browser_is_used() -> None:
    issued = users.issue_token(ALICE, "lamp", "", 1)
    with session():
        digest = Token.get(Token.id == issued.record.id).digest
    api_tokens.store_uses({digest: NOON, "of a token that was deleted": NOON})
    with time_machine.travel(NOON, tick=False):
        browser = browser_sessions.begin(Actor("gate", Via.PAGE), How(Method.PASSWORD), LIFETIME, "")
    assert seen() == {"press": None, "lamp": NOON, "gate": NOON}
    with time_machine.travel(NOON + HOUR / 2, tick=False):
        assert browser_sessions.username_of(browser, LIFETIME) == "gate"
    assert seen()["gate"] == NOON + HOUR / 2


@pytest.mark.usefixtures("three_users")
def test_users_are_sorted_by_name_and_by_times() -> None:
    assert names(UserFilter(), "-username") == ["press", "lamp", "gate"]
    assert names(UserFilter(), "createdAt") == ["press", "lamp", "gate"]
    assert names(UserFilter(), "-createdAt") == ["gate", "lamp", "press"]
    assert names(UserFilter(), "-updatedAt") == ["gate", "lamp", "press"]


def test_pages_of_users_that_were_never_seen_neither_overlap_nor_leave_gaps() -> None:
    for number in range(5):
        create_user(f"device-{number}")
    pages = [users.search(UserFilter("device"), page, 2, "lastSeen").items for page in (1, 2, 3)]
    assert sorted(user.username for page in pages for user in page) == [f"device-{number}" for number in range(5)]


def test_audit_events_are_filtered_by_time_and_listed_from_either_end() -> None:
    for name in ("one", "two", "three"):
        create_user(name)
    moments = {event.target: event.at for event in events()}
    wanted = AuditFilter(action="user.create", after=moments["user:two"])
    assert [event.target for event in audit.events(1, 9, wanted).items] == ["user:three", "user:two"]
    wanted = AuditFilter(actor="alice", before=moments["user:three"])
    assert [event.target for event in audit.events(1, 9, wanted, oldest_first=True).items] == ["user:one", "user:two"]
    none = AuditFilter(after=moments["user:three"], before=moments["user:three"])
    assert audit.events(1, 9, none).total == 0


@pytest.mark.parametrize(
    ("wanted", "sort", "expected"),
    [
        ({}, "-connectedAt", ["c-3", "c-2", "c-1"]),
        ({}, "connectedAt", ["c-1", "c-2", "c-3"]),
        ({}, "username", ["c-2", "c-1", "c-3"]),
        ({}, "-clientId", ["c-3", "c-2", "c-1"]),
        ({"credential": "token"}, "-connectedAt", ["c-2"]),
        ({"connected_after": SINCE + timedelta(seconds=2)}, "clientId", ["c-2", "c-3"]),
        ({"connected_before": SINCE + timedelta(seconds=2)}, "clientId", ["c-1"]),
        (
            {"connected_after": SINCE, "connected_before": SINCE + timedelta(seconds=3), "username": "ann"},
            "clientId",
            ["c-2"],
        ),
    ],
)
def test_connected_clients_are_filtered_and_sorted(
    wanted: dict[str, Any], sort: ClientSort, expected: list[str]
) -> None:
    report(connected(1, "bob"), connected(2, "ann", credential="token"), connected(3, "carol"), boot=BOOT)
    found = live_clients.search(LiveClientFilter(**wanted), 1, 50, sort)
    assert [client.client_id for client in found.items] == expected

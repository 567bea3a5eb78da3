"""Lists and snapshots with 100,000 users."""

from __future__ import annotations

import pytest

from authsvc.accounts import users
from tests.actors import mqtt
from tests.storage.environment import change_user, execute, loaded_policy

pytestmark = pytest.mark.usefixtures("prepared")

MANY = 100_000
INSERT = f"""
INSERT INTO users (username, enabled, grant_types, created_at, updated_at)
WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {MANY})
SELECT 'device-' || (1000000 + n), TRUE, 'password', '2026-11-20 08:00:00', '2026-11-20 08:00:00' FROM numbers
"""


def names(*numbers: int) -> list[str]:
    return [f"device-{1_000_000 + number}" for number in numbers]


def test_search_and_pages_work_with_100_000_users() -> None:
    execute(INSERT)
    found = users.search(users.UserFilter("100099"), 1, 50)
    assert found.total == 10
    assert [user.username for user in found.items] == names(*range(990, 1000))

    in_the_middle = users.search(users.UserFilter("DEVICE"), 1001, 50)
    assert in_the_middle.total == MANY
    assert [user.username for user in in_the_middle.items] == names(*range(50_001, 50_051))

    last = users.search(users.UserFilter(""), 2001, 50)
    assert (last.total, [user.username for user in last.items]) == (MANY + 1, names(MANY))
    assert users.search(users.UserFilter(""), 2002, 50).items == []


def test_snapshot_of_100_000_users_is_loaded_and_updated() -> None:
    execute(INSERT)
    known = loaded_policy()
    assert len(known.snapshot.users) == MANY + 1
    (somebody,) = names(77_777)
    change_user(somebody, permissions=(mqtt("read", "#"),))
    known.catch_up()
    assert known.snapshot.users[somebody].permissions == (mqtt("read", "#"),)

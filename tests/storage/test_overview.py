"""The overview for administrators, with and without the database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from authsvc import __version__
from authsvc.accounts.overview import overview
from authsvc.storage.database import is_sqlite
from tests.storage.environment import create_bob, database_gone, loaded_policy, version

if TYPE_CHECKING:
    from authsvc.settings import Settings

pytestmark = pytest.mark.usefixtures("prepared")


def test_overview_shows_users_policy_and_database() -> None:
    create_bob()
    facts = overview(loaded_policy())
    assert (facts.version, facts.users, facts.database_answers) == (__version__, 2, True)
    assert facts.database == ("SQLite" if is_sqlite() else "PostgreSQL")
    assert facts.policy_version == version()
    assert 0 <= facts.policy_age < 60
    assert (facts.expiring, facts.expiring_first) == (0, ())


def test_overview_works_without_the_database(prepared: Settings) -> None:
    policy = loaded_policy()
    with database_gone(prepared):
        facts = overview(policy)
    assert (facts.users, facts.database_answers, facts.expiring, facts.expiring_first) == (1, False, None, ())

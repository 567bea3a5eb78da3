"""Registrations whose database row cannot be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from authsvc.storage.database import database, session
from registry import preauthorizations
from registry.mqtt_registration.registration import Outcome
from registry.preauthorizations import NewPreauthorization
from tests.actors import OPERATOR
from tests.http.callers import problem_of
from tests.registry.environment import BOBS_PASSWORD, REGISTRATIONS, expect_success

if TYPE_CHECKING:
    from flask.testing import FlaskClient

    from tests.registry.environment import Environment

COLUMNS = [
    "client_ids",
    "context",
    "requested_roles",
    "requested_permissions",
    "starting_roles",
    "starting_permissions",
    "conflict_addresses",
]


def damage(table: str, column: str, text: str) -> None:
    with session():
        database.execute_sql(f"UPDATE {table} SET {column} = '{text}' WHERE username = 'bob'")


@pytest.mark.parametrize("column", COLUMNS)
def test_damaged_registration_does_not_affect_others(env: Environment, browser: FlaskClient, column: str) -> None:
    env.unlock()
    registration = env.register_pending("bob")
    for text in ("[not json", '{"a": 1' + "}" * (column != "context"), "5"):
        damage("registrations", column, text)
        assert env.registration("bob")["damage"] == [column]
        assert browser.get("/admin/registry").status_code == 200
        assert browser.get(f"/admin/registry/registrations/{registration}").status_code == 200
    problem_of(env.grant(registration), 409, "registration-damaged")
    for name in ("bob", "carol"):
        env.mqtt.enqueue(None, name, BOBS_PASSWORD, "c1")
    env.flush()
    assert env.mqtt.counters == {Outcome.REPEATED: 1, Outcome.RECORDED: 1}
    expect_success(env.deny(registration))
    assert env.alice.delete(f"{REGISTRATIONS}/{registration}").status_code == 204
    env.grant_successfully(env.register_pending("bob"))


@pytest.mark.parametrize("column", ["roles", "permissions"])
def test_damaged_preauthorization_is_ignored(env: Environment, column: str) -> None:
    preauthorizations.create(OPERATOR, [NewPreauthorization("bob")], env.services.settings.password_policy)
    damage("preauthorizations", column, "[not json")
    assert not env.connect("bob", BOBS_PASSWORD)
    assert env.registration("bob")["status"] == "pending"
    assert env.user("bob") is None


def test_unreadable_value_does_not_stop_other_contacts(env: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> bool:
        if name == "bob":
            raise ValueError("damaged")
        return False

    monkeypatch.setattr("registry.mqtt_registration.registration.users.exists", refuse)
    for name in ("bob", "carol"):
        env.mqtt.enqueue(None, name, BOBS_PASSWORD, "c1")
    env.flush()
    assert env.mqtt.counters == {Outcome.FAILED: 1, Outcome.RECORDED: 1}

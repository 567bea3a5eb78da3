"""A registration whose database row cannot be read shows as damaged, and stops nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from authsvc.storage.database import database, session
from registry import preauthorizations
from registry.mqtt_registration.registration import Outcome
from registry.preauthorizations import NewPreauthorization
from tests.actors import OPERATOR
from tests.http.callers import problem_of
from tests.registry.environment import BOBS_PASSWORD, REGISTRATIONS, done

if TYPE_CHECKING:
    from flask.testing import FlaskClient

    from tests.registry.environment import Place

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
def test_a_damaged_registration_stops_neither_the_list_nor_other_registrations(
    place: Place, browser: FlaskClient, column: str
) -> None:
    place.unlock()
    registration = place.asks("bob")
    for text in ("[not json", '{"a": 1' + "}" * (column != "context"), "5"):
        damage("registrations", column, text)
        assert place.registration("bob")["damage"] == [column]
        assert browser.get("/admin/registry").status_code == 200
        assert browser.get(f"/admin/registry/registrations/{registration}").status_code == 200
    problem_of(place.grant(registration), 409, "registration-damaged")
    for name in ("bob", "carol"):
        place.intake.enqueue(None, name, BOBS_PASSWORD, "c1")
    place.writes_down()
    assert place.intake.counters == {Outcome.REPEATED: 1, Outcome.RECORDED: 1}
    done(place.deny(registration))
    assert place.alice.delete(f"{REGISTRATIONS}/{registration}").status_code == 204
    place.granted(place.asks("bob"))


@pytest.mark.parametrize("column", ["roles", "permissions"])
def test_a_damaged_preauthorization_lets_nobody_in(place: Place, column: str) -> None:
    preauthorizations.create(OPERATOR, [NewPreauthorization("bob")], place.services.settings.password_policy)
    damage("preauthorizations", column, "[not json")
    assert not place.connects("bob", BOBS_PASSWORD)
    assert place.registration("bob")["status"] == "pending"
    assert place.user("bob") is None


def test_a_stored_value_that_cannot_be_read_stops_no_other_contact(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str) -> bool:
        if name == "bob":
            raise ValueError("damaged")
        return False

    monkeypatch.setattr("registry.mqtt_registration.registration.users.exists", refuse)
    for name in ("bob", "carol"):
        place.intake.enqueue(None, name, BOBS_PASSWORD, "c1")
    place.writes_down()
    assert place.intake.counters == {Outcome.FAILED: 1, Outcome.RECORDED: 1}

"""Names that cannot register are shown to administrators with the reason, in a bounded list."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from authsvc.credentials.usernames import RegistrationNames
from registry.mqtt_registration import refused_names
from registry.mqtt_registration.refused_names import MAX_NAMES, RefusedNames
from tests.http.console import Console, stdout_of
from tests.registry.environment import ON_BOTH_DATABASES, Environment, expect_success, with_settings

if TYPE_CHECKING:
    import pytest

REFUSED = "/api/client-registry/refused-names"
HOSTILE = "<script>alert(1)</script>\u202e"


def listed(env: Environment) -> dict[str, tuple[str, int, str]]:
    env.mqtt.refused_names.store()
    items = expect_success(env.charlie.get(REFUSED))["items"]
    return {one["name"]: (one["reason"], one["attempts"], one["clientId"]) for one in items}


@ON_BOTH_DATABASES
def test_attempts_with_names_that_cannot_register_are_listed_with_the_reason(env: Environment) -> None:
    env.unlock()
    restricted = "must be 3 to 64 of A-Z a-z 0-9 _ . - and begin with a letter or digit"
    for name, client_id in (
        ("halle 3", "c1"),
        ("halle 3", "c2"),
        ("a/b", "c3"),
        ("x" * 300, "c4"),
        ("bob\ud800", "c5"),
    ):
        assert not env.connect(name, "let me in", client_id)
    env.connect("press-7", "let me in")
    assert listed(env) == {
        "halle 3": (restricted, 2, "c2"),
        "a/b": (restricted, 1, "c3"),
        "x" * 255: ("must have 1 to 255 characters", 1, "c4"),
        "bob?": ("must be valid Unicode", 1, "c5"),
    }
    env.connect("halle 3", "let me in")
    assert listed(env)["halle 3"][1] == 3
    assert [one["username"] for one in env.registrations()] == ["press-7"]


@with_settings(registration_usernames=RegistrationNames.ANY)
def test_setting_lets_any_name_register_that_a_user_may_have(env: Environment) -> None:
    env.unlock()
    assert not env.connect("halle 3/ä", "let me in")
    env.grant_successfully(env.registration("halle 3/ä")["id"])
    assert env.connect("halle 3/ä", "let me in")
    assert env.register("tenant/dev").status_code == 202
    assert not env.connect("a\x85b", "let me in")
    assert listed(env) == {"a\x85b": ("must not contain control characters", 1, "c1")}


def test_name_that_cannot_register_is_refused_over_rest_and_for_a_preauthorization(env: Environment) -> None:
    env.unlock()
    answers = env.register("halle 3"), env.alice.post("/api/client-registry/preauthorizations", {"username": "halle 3"})
    for answer in answers:
        assert answer.status_code == 400
        assert [one["field"] for one in answer.get_json()["errors"]] == ["username"]


@ON_BOTH_DATABASES
def test_list_keeps_the_latest_names_and_a_flood_writes_no_more(env: Environment) -> None:
    noted = RefusedNames()
    for number in range(MAX_NAMES):
        noted.note(f"old {number}", "a reason", "c1")
    noted.store()
    for number in range(MAX_NAMES + 50):
        noted.note(f"new {number}", "a reason", "c1")
    noted.store()
    found = refused_names.search(1, 1000)
    assert found.total == MAX_NAMES
    assert {one.name for one in found.items} == {f"new {number}" for number in range(MAX_NAMES)}


def test_hostile_names_are_escaped_on_the_page_and_in_the_terminal(
    env: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    env.connect(HOSTILE, "let me in", "\u202ec1")
    assert HOSTILE in listed(env)
    browser = env.app.test_client()
    browser.get(f"/admin?apiToken={env.alice.signs_in('alice', 'alice may do anything').token}")
    page = browser.get("/admin/registry/refused-names").text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\u202e" in page
    assert "<script>alert" not in page
    assert "\u202e" not in page
    settings = env.services.settings
    environment = {"AUTHSVC_DATA_DIR": str(settings.data_dir), "AUTHSVC_DATABASE_URL": settings.database_url}
    console = Console(environment, capsys)
    assert "\u202e" not in stdout_of(console.command("registry", "refused-names"))
    assert json.loads(stdout_of(console.command("registry", "refused-names", "--json")))["items"][0]["name"] == HOSTILE

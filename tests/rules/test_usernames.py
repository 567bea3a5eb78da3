"""Usernames, role names and their look-alike form."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authsvc.credentials.usernames import (
    RegistrationNames,
    registration_problem,
    skeleton,
    special_characters,
    validate_registration_name,
    validate_role_name,
    validate_username,
)
from authsvc.errors import InvalidInput
from authsvc.policy.topics import validate_rule, validate_topic


@pytest.mark.parametrize(
    "name", ["bob", "Bob", "0ne", "a.b", "a-b", "a_b", "a..", "x--", "a" * 64, "192.0.2.1", "C3PO"]
)
def test_names_that_can_register_always(name: str) -> None:
    for allowed in RegistrationNames:
        assert validate_registration_name(name, allowed) == validate_username(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "ab",
        "a" * 65,
        ".bob",
        "-bob",
        "_bob",
        "bob ",
        " bob",
        "bob\n",
        "b ob",
        "bob\0",
        "bob/x",
        "bob+",
        "bob#",
        "bob%u",
        "$bob",
        "böb",
        "\u0430bob",  # a Cyrillic a
        "bob\u0661",
        "bob@example.com",
        "bob\ud800",
    ],
)
def test_names_that_cannot_register_by_default_are_refused(name: str) -> None:
    assert registration_problem(name, RegistrationNames.RESTRICTED)
    with pytest.raises(InvalidInput) as error:
        validate_registration_name(name, RegistrationNames.RESTRICTED)
    assert error.value.errors[0].field == "username"


@pytest.mark.parametrize(
    "name",
    [
        "h",
        "ha",
        "AA:BB:CC:DD:EE:FF",
        "pump@plant.de",
        "halle 3",
        "tenant/dev",
        "a+b",
        "#",
        "%u",
        "$x",
        "é" * 255,
        "\U0001f4a7",
    ],
)
def test_users_may_have_any_name_that_mqtt_allows(name: str) -> None:
    assert validate_username(name) == name
    assert registration_problem(name, RegistrationNames.ANY) is None


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a" * 256, "a\0", "a\n", "\x1f", "a\x7f", "\x85", "a\ud800", "\ufffe", "\ufdd0"]
)
def test_names_that_mqtt_or_mosquitto_do_not_allow_are_refused(name: str) -> None:
    assert registration_problem(name, RegistrationNames.ANY)
    with pytest.raises(InvalidInput) as error:
        validate_username(name)
    assert error.value.errors[0].field == "username"


@pytest.mark.parametrize(("name", "special"), [("press-7", ""), ("a/b", "/"), ("#a+", "+#"), ("AA:BB", "")])
def test_characters_that_fit_no_topic_filter_with_the_username_are_found(name: str, special: str) -> None:
    assert special_characters(name) == special


@pytest.mark.parametrize("name", ["a", "admin", "minimum-access", "a" * 64, "0", "a.b_c-d"])
def test_valid_role_names(name: str) -> None:
    assert validate_role_name(name) == name


@pytest.mark.parametrize("name", ["", "a" * 65, ".a", "-a", "_a", "a b", "a\n", "a/b", "a+", "#", "ä", "a\0"])
def test_invalid_role_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidInput) as error:
        validate_role_name(name)
    assert error.value.errors[0].field == "name"


@given(st.text(alphabet="aB0_.-+#/%$ \0é\n", max_size=6) | st.text() | st.from_regex(r"[A-Za-z0-9][\w.-]{2,63}"))
def test_every_name_that_registers_by_default_is_one_literal_level_of_a_topic(name: str) -> None:
    if registration_problem(name, RegistrationNames.RESTRICTED) is None:
        assert validate_topic(name) == validate_rule(name) == (name,)
        assert not name.startswith("$")
        assert name.isascii()


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("bad-1", "Bad-1"),
        ("bad-1", "BAD_1"),
        ("bad-1", "bad.l"),
        ("bad-1", "bad--I"),
        ("oven", "0VEN"),
        ("modem", "rnodern"),
        ("web", "vveb"),
        ("door", "cloor"),
        ("press-5", "pres5-s"),
        ("zone-8", "2one-b"),
        ("gate-9", "gate-g"),
        ("gateway-1", "qateway-1"),
        ("bad-1", "bad1"),
        ("press-11", "press-1-1"),
        ("press", "\uff50\uff52\uff45\uff53\uff53"),  # full width
        ("stra\u00dfe", "strasse"),
    ],
)
def test_look_alike_names_share_a_skeleton(name: str, other: str) -> None:
    assert skeleton(name) == skeleton(other)


def test_numbered_devices_have_different_skeletons() -> None:
    names = [f"press-{number}" for number in range(10_000)]
    assert len(set(map(skeleton, names))) == len(names)


@pytest.mark.parametrize(("name", "other"), [("press-11", "press-111"), ("bob", "bobb"), ("carol", "karol")])
def test_visibly_different_names_have_different_skeletons(name: str, other: str) -> None:
    assert skeleton(name) != skeleton(other)


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.\-]{2,63}", fullmatch=True))
def test_skeleton_ignores_case_and_is_its_own_skeleton(name: str) -> None:
    assert skeleton(name.swapcase()) == skeleton(name) == skeleton(skeleton(name))

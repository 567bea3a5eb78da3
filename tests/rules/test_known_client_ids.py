"""Known client ids: by user, limited, and separate for each user."""

from __future__ import annotations

import pytest

from authsvc.policy.known_client_ids import MAX_LENGTH, PER_USER, KnownClientIds


def test_client_id_is_known_for_its_user_only() -> None:
    known = KnownClientIds()
    known.add("bob", "press-7")
    assert known.knows("bob", "press-7")
    assert not known.knows("bob", "press-8")
    assert not known.knows("bertha", "press-7")


@pytest.mark.parametrize("client_id", ["", "c" * (MAX_LENGTH + 1)])
def test_empty_or_too_long_client_id_is_never_known(client_id: str) -> None:
    known = KnownClientIds()
    known.add("bob", client_id)
    assert not known.knows("bob", client_id)
    assert known.entries == 0


def test_client_id_that_is_not_valid_unicode_can_be_known() -> None:
    known = KnownClientIds()
    known.add("bob", "\ud800")
    assert known.knows("bob", "\ud800")


def test_client_id_that_is_added_again_is_one_entry() -> None:
    known = KnownClientIds()
    for _ in range(3):
        known.add("bob", "press-7")
    assert known.entries == 1


def test_user_with_many_client_ids_keeps_the_newest_and_displaces_no_other_user() -> None:
    known = KnownClientIds(max_entries=4 * PER_USER)
    known.add("bertha", "press-7")
    for number in range(20 * PER_USER):
        known.add("bob", f"press-{number}")
    assert known.knows("bertha", "press-7")
    assert known.knows("bob", f"press-{19 * PER_USER}")
    assert not known.knows("bob", f"press-{19 * PER_USER - 1}")
    assert known.entries <= 4 * PER_USER


def test_users_that_logged_in_last_stay_known_when_memory_is_full() -> None:
    known = KnownClientIds(max_entries=2 * PER_USER)
    for number in range(10 * PER_USER):
        known.add(f"press-{number}", "c")
        known.add("bob", "press-7")
    assert known.entries <= 2 * PER_USER
    assert known.knows("bob", "press-7")
    assert known.knows(f"press-{10 * PER_USER - 1}", "c")
    assert not known.knows("press-0", "c")

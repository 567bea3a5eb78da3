"""Known client ids: who has logged in with which, bounded, and nobody displaces those of others."""

from __future__ import annotations

import pytest

from authsvc.policy.known_client_ids import MAX_LENGTH, PER_USER, KnownClientIds


def test_only_a_client_id_that_was_learnt_is_known_and_only_for_its_user() -> None:
    known = KnownClientIds()
    known.learn("bob", "press-7")
    assert known.knows("bob", "press-7")
    assert not known.knows("bob", "press-8")
    assert not known.knows("bertha", "press-7")


@pytest.mark.parametrize("client_id", ["", "c" * (MAX_LENGTH + 1)])
def test_a_client_id_that_a_restart_would_forget_is_never_known(client_id: str) -> None:
    known = KnownClientIds()
    known.learn("bob", client_id)
    assert not known.knows("bob", client_id)
    assert known.entries == 0


def test_a_client_id_that_is_not_unicode_can_be_known() -> None:
    known = KnownClientIds()
    known.learn("bob", "\ud800")
    assert known.knows("bob", "\ud800")


def test_a_client_id_that_is_learnt_again_takes_no_more_room() -> None:
    known = KnownClientIds()
    for _ in range(3):
        known.learn("bob", "press-7")
    assert known.entries == 1


def test_a_user_with_ever_new_client_ids_keeps_the_newest_and_displaces_nobody_elses() -> None:
    known = KnownClientIds(max_entries=4 * PER_USER)
    known.learn("bertha", "press-7")
    for number in range(20 * PER_USER):
        known.learn("bob", f"press-{number}")
    assert known.knows("bertha", "press-7")
    assert known.knows("bob", f"press-{19 * PER_USER}")
    assert not known.knows("bob", f"press-{19 * PER_USER - 1}")
    assert known.entries <= 4 * PER_USER


def test_of_more_users_than_there_is_room_for_those_that_logged_in_last_are_known() -> None:
    known = KnownClientIds(max_entries=2 * PER_USER)
    for number in range(10 * PER_USER):
        known.learn(f"press-{number}", "c")
        known.learn("bob", "press-7")
    assert known.entries <= 2 * PER_USER
    assert known.knows("bob", "press-7")
    assert known.knows(f"press-{10 * PER_USER - 1}", "c")
    assert not known.knows("press-0", "c")

"""Allowed client ids in C equal authsvc.policy.allowed_client_ids, for any patterns and names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from authsvc.policy.allowed_client_ids import allows

if TYPE_CHECKING:
    from tests.plugin.native import Native

_patterns = st.lists(st.text("ab*%uü", max_size=8) | st.sampled_from(["%u", "%u-*", "*%u*", "*-%u", "a*b"]), max_size=3)
_client_ids = st.text("abu%*-ü", max_size=12) | st.sampled_from(["a-1", "b", "ab-", "x-ab"])
_usernames = st.sampled_from(["a", "b", "ab", "ü"]) | st.text("ab*%u", max_size=3)


def assert_answers_are_the_same(native: Native, examples: int) -> None:
    @settings(max_examples=examples)
    @given(_patterns, _usernames, _client_ids)
    def compare(patterns: list[str], username: str, client_id: str) -> None:
        expected = allows(patterns, username, client_id)
        event(f"allowed: {expected}")
        assert native.client_id_allowed(patterns, username, client_id) is expected

    compare()


def test_allowed_client_ids_equal_those_of_the_policy(native: Native) -> None:
    assert_answers_are_the_same(native, 1000)


@pytest.mark.slow
def test_very_many_allowed_client_ids_equal_those_of_the_policy(native: Native) -> None:
    assert_answers_are_the_same(native, 30_000)

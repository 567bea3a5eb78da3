"""Allowed client ids in C equal authsvc.policy.allowed_client_ids, for any patterns and names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from authsvc.policy.allowed_client_ids import allows

if TYPE_CHECKING:
    from tests.plugin.native import Native

# Short parts of few characters, so that parts overlap: *ab*ba* does not match aba.
_parts = st.lists(st.sampled_from(["", "a", "b", "ab", "ba", "%u"]), min_size=1, max_size=4).map("*".join)
_patterns = st.lists(_parts | st.text("ab*%uü", max_size=8), max_size=3)
_client_ids = st.text("ab", max_size=6) | st.text("abu%*-ü", max_size=12)
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
    assert_answers_are_the_same(native, 10_000)

"""The plugin's decisions in C equal those of authsvc.policy, for any rules and questions."""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from authsvc.errors import InvalidInput
from authsvc.policy.access import READ, SUBSCRIBE, WRITE
from authsvc.policy.decision import Reason
from authsvc.policy.permissions import Context, Effect, Operation, Permission
from authsvc.policy.sharded_map import ShardedMap
from authsvc.policy.snapshot import RolePolicy, Snapshot, UserPolicy
from tests.plugin.native import Native, reason_in_policy, user_fields
from tests.rules.filters import NAMES
from tests.rules.test_rule_index import FILLING

if TYPE_CHECKING:
    from collections.abc import Sequence

# Few names, so that many rules match; and rare levels that make a rule, topic or topic filter malformed.
_LEVELS = (*["a", "b", "bob", "", "$SYS"] * 4, "$SYSTEM", "%u", "\udc80", "ü")
_WILD = (*_LEVELS, *["+"] * 10, "a+", "#")
_PERSONAL = (*["a", "b", "bob", "", "$SYS", "+", "+", "%u", "%c"] * 4, "%ux", "%u%c", "$share", "#b")
_REST = ["#"] * 15
_names = st.sampled_from(["bob", "bob", "a", *NAMES]) | st.text(
    st.characters(exclude_characters="\0", codec="utf-8"), max_size=3
)


def _joined(levels: Sequence[str], last: Sequence[str]) -> st.SearchStrategy[str]:
    """Return texts of up to two of these levels and one of these last levels, some of them in `$SYS`."""
    start = st.sampled_from(["", "", "", "$SYS/"])
    return st.builds(
        lambda start, levels, last: start + "/".join([*levels, last]),
        start,
        st.lists(st.sampled_from(levels), max_size=2),
        st.sampled_from(last),
    )


_topics = _joined(_LEVELS, _LEVELS)
_filters = _joined(_WILD, (*_WILD, *_REST))
_groups = st.sampled_from(["$share/g/"] * 12 + ["$share/%u/", "$share/", "$share//", "$share/+/", "$share", "$shared/"])
_shares = st.builds(str.__add__, _groups, _filters)
_resources = _joined(_PERSONAL, (*_PERSONAL, *_REST))
_anything = _resources | _filters | _shares | st.text(st.characters(exclude_characters="\0"), max_size=6)
_operations = st.sampled_from(Operation)
_effects = st.sampled_from(Effect)


def _valid(operation: Operation, resource: str, effect: Effect) -> Permission | None:
    try:
        return Permission(Context.MQTT, operation, resource, effect)
    except InvalidInput:
        return None


class Case(NamedTuple):
    """A user's rules, its own and a role's, and what is asked: every topic, by every client id, with every access."""

    own: tuple[Permission, ...]
    of_role: tuple[Permission, ...]
    client_ids: tuple[str, ...]
    username: str
    asking: list[str]
    drawn: list[str]

    @property
    def topics(self) -> list[str]:
        """The topics and topic filters that were drawn, and some that rules match or overlap."""
        names = {"+": "b", "#": "a", "%u": self.username, "%c": self.asking[0]}
        near = []
        for permission in (*self.own[:2], *self.of_role[:2]):
            concrete = "/".join(names.get(level, level) for level in permission.levels)
            near += [concrete, f"$share/g/{concrete}", f"$share/g/{permission.resource}"]
        return self.drawn + near

    @property
    def snapshot(self) -> Snapshot:
        user = UserPolicy(self.username, True, frozenset(), None, self.own, ("plant",), client_ids=self.client_ids)
        roles = {"plant": RolePolicy(self.of_role)}
        return Snapshot(users=ShardedMap([(self.username, user)]), roles=roles, version=1)

    @property
    def fields(self) -> dict[str, object]:
        rules = [str(permission) for permission in (*self.own, *self.of_role)]
        return user_fields(username=self.username, rules=rules, clientIds=list(self.client_ids), roles=["plant"])


_rules = st.lists(st.builds(_valid, _operations, _resources, _effects), max_size=5).map(
    lambda drawn: tuple(filter(None, drawn))
)
_patterns = st.sampled_from([*[()] * 8, ("*",), ("%u",), ("b*", "%u-*")])
_cases = st.builds(
    Case,
    st.builds(tuple.__add__, _rules, st.sampled_from([(), (), (), FILLING])),
    _rules,
    _patterns,
    _names,
    st.lists(_names, min_size=2, max_size=2),
    st.lists(_topics | _filters | _shares | _shares, min_size=6, max_size=6),
)


def assert_decisions_are_the_same(native: Native, examples: int) -> None:
    """Compare the decisions of this number of cases, and check that no kind of decision was rare."""
    seen: Counter[str] = Counter()

    @settings(max_examples=examples, suppress_health_check=list(HealthCheck))
    @given(_cases)
    def compare(case: Case) -> None:
        snapshot, user = case.snapshot, native.user(case.fields)
        assert user
        with user:
            for client_id, topic, access in product(case.asking, case.topics, (READ, WRITE, SUBSCRIBE)):
                expected = reason_in_policy(snapshot, case.username, client_id, topic, access)
                assert user.decide(client_id, access, topic) is expected, (client_id, topic, access)
                seen.update(kinds(topic, access, expected))

    compare()
    assert seen["question"] >= 36 * examples
    assert {kind for kind, count in seen.items() if count >= examples // 50} == KINDS, seen


_BY_RULES = (Reason.PERMISSION, Reason.NO_PERMISSION, Reason.DENIED_BY_PERMISSION)
_OTHERS = (Reason.SHARE_REACHES_DENIED, Reason.MALFORMED, Reason.CLIENT_ID_NOT_ALLOWED)
KINDS = {"question", *_BY_RULES, *_OTHERS}
KINDS |= {f"share: {reason}" for reason in (*_BY_RULES, *_OTHERS)} | {f"$ topic: {reason}" for reason in _BY_RULES}


def kinds(topic: str, access: int, reason: Reason) -> list[str]:
    """Return the names under which a decision is counted."""
    found = ["question", str(reason)]
    if access == SUBSCRIBE and topic.startswith("$share/"):
        found.append(f"share: {reason}")
    elif topic.startswith("$") and reason in _BY_RULES:
        found.append(f"$ topic: {reason}")
    return found


def test_decisions_equal_those_of_the_policy(native: Native) -> None:
    assert_decisions_are_the_same(native, 200)


@pytest.mark.slow
def test_decisions_equal_those_of_the_policy_for_very_many_rule_sets(native: Native) -> None:
    assert_decisions_are_the_same(native, 4000)


@settings(max_examples=1000)
@given(_operations, _anything, _effects)
def test_c_accepts_exactly_the_valid_rules(native: Native, operation: Operation, resource: str, effect: Effect) -> None:
    valid = _valid(operation, resource, effect) is not None
    event(f"valid: {valid}")
    with native.rules() as rules:
        assert rules.add(f"{'deny ' if effect is Effect.DENY else ''}{operation} {resource}") is valid

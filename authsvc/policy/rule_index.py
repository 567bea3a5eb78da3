"""An index that finds the rules that can match a topic, in a time that does not depend on the number of rules.

It is a tree with a node for each level. A search follows the literal level, `+`, `%u` and `%c`, and collects every `#`
on its way. It only narrows the choice: `permissions.decide` still checks each rule, so a rule that is found and does
not match costs time only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from authsvc.policy.permissions import Permission
    from authsvc.policy.topics import Levels

MAX_SCANNED = 16
"""Up to this number of rules, checking each is as fast as the index."""

_PLACEHOLDERS = ("+", "%u", "%c")


class _Node:
    __slots__ = ("below", "ending_here")

    def __init__(self) -> None:
        self.below: dict[str, _Node] = {}
        self.ending_here: list[Permission] = []


class RuleIndex:
    """The rules of one user or role by the levels of their resource."""

    def __init__(self, permissions: Iterable[Permission]) -> None:
        self._root = _Node()
        for permission in permissions:
            node = self._root
            for level in permission.levels:
                node = node.below.setdefault(level, _Node())
            node.ending_here.append(permission)

    def candidates(self, requested: Levels) -> Iterator[Permission]:
        """Yield every rule that could cover a topic or topic filter, and possibly a few others."""
        nodes = [self._root]
        for level in requested:
            reached: list[_Node] = []
            for node in nodes:
                rest = node.below.get("#")
                if rest:
                    yield from rest.ending_here
                reached += [node.below[step] for step in {level, *_PLACEHOLDERS} - {"#"} if step in node.below]
            nodes = reached
        for node in nodes:
            yield from node.ending_here
            if "#" in node.below:
                yield from node.below["#"].ending_here

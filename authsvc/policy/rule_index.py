"""Finding the few rules that can matter among many, in a time that depends on the topic and not on their number.

A tree with a node a level: a topic's walk through it follows the literal level, `+`, `%u` and `%c`, and picks up
every `#` on its way. It only narrows the choice. `permissions.decide` still asks each rule itself, so a rule that is
found in vain costs time and never an answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from authsvc.policy.permissions import Permission
    from authsvc.policy.topics import Levels

FEW = 16
"""So many rules are asked one by one as fast as through a tree."""

_STANDING_FOR_ANY = ("+", "%u", "%c")


class _Node:
    __slots__ = ("below", "ending_here")

    def __init__(self) -> None:
        self.below: dict[str, _Node] = {}
        self.ending_here: list[Permission] = []


class RuleIndex:
    """The rules of one user or role, found by what they could cover."""

    def __init__(self, permissions: Iterable[Permission]) -> None:
        self._root = _Node()
        for permission in permissions:
            node = self._root
            for level in permission.levels:
                node = node.below.setdefault(level, _Node())
            node.ending_here.append(permission)

    def candidates(self, requested: Levels) -> Iterator[Permission]:
        """Yield every rule that could cover a topic or topic filter, and few others."""
        nodes = [self._root]
        for level in requested:
            reached: list[_Node] = []
            for node in nodes:
                rest = node.below.get("#")
                if rest:
                    yield from rest.ending_here
                reached += [node.below[step] for step in {level, *_STANDING_FOR_ANY} - {"#"} if step in node.below]
            nodes = reached
        for node in nodes:
            yield from node.ending_here
            if "#" in node.below:
                yield from node.below["#"].ending_here

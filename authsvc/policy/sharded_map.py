"""An immutable mapping with cheap changed copies.

The entries are distributed over 1,024 small dicts by the hash of their key. A changed copy shares every dict that it
does not change: one changed entry among 1,000,000 copies about 1,000 entries, which takes about 20 µs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

Value = TypeVar("Value")

_SHARDS = 1024  # a power of two


class ShardedMap(Mapping[str, Value], Generic[Value]):
    """An immutable mapping, so that a reader in another thread sees either all of a change or none."""

    __slots__ = ("_shards",)

    def __init__(self, entries: Iterable[tuple[str, Value]] = ()) -> None:
        shards: list[dict[str, Value]] = [{} for _ in range(_SHARDS)]
        for key, value in entries:
            shards[hash(key) % _SHARDS][key] = value
        self._shards = tuple(shards)

    def replaced(self, keys: Iterable[str], values: Mapping[str, Value]) -> ShardedMap[Value]:
        """Return a copy in which these keys have the given values; a key without a value is absent from the copy."""
        copies: dict[int, dict[str, Value]] = {}
        for key in keys:
            at = hash(key) % _SHARDS
            shard = copies.setdefault(at, self._shards[at])
            if shard is self._shards[at]:
                shard = copies[at] = shard.copy()
            if key in values:
                shard[key] = values[key]
            else:
                shard.pop(key, None)
        if not copies:
            return self
        changed: ShardedMap[Value] = ShardedMap.__new__(ShardedMap)
        changed._shards = tuple(copies.get(at, shard) for at, shard in enumerate(self._shards))
        return changed

    def __getitem__(self, key: str) -> Value:
        return self._shards[hash(key) % _SHARDS][key]

    def get(self, key: str, default: Value | None = None) -> Value | None:  # type: ignore[override]
        """Return the value or the default. The inherited method is slower: it raises and catches for a missing key."""
        return self._shards[hash(key) % _SHARDS].get(key, default)

    def __iter__(self) -> Iterator[str]:
        for shard in self._shards:
            yield from shard

    def __len__(self) -> int:
        return sum(map(len, self._shards))

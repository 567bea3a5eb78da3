"""An immutable mapping with cheap changed copies, made for many users in several processes.

Most entries are in a `PackedTable`: a few large objects, which a forked process shares with its parent for as long as
both live. Entries that are changed later are distributed over 1,024 small dicts by the hash of their key. A changed
copy shares the table and every dict that it does not change: one changed entry among 1,000,000 takes about 20 µs.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Value = TypeVar("Value")

_SHARDS = 1024  # a power of two
_END_OF_KEY = b"\x1e"


class PackedTable(Generic[Value]):
    """Records as bytes, found by their key; each record begins with its key and the byte 1E.

    Python counts the references to an object inside the object, so a forked process copies the memory of each object
    that it merely reads. Here one `bytes` has all records and two arrays are a hash table: reading changes neither.
    `unpack` makes a value of a record; it should cache those used last.
    """

    __slots__ = ("_mask", "_records", "_slots", "_starts", "unpack")

    def __init__(self, unpack: Callable[[bytes], Value], records: Iterable[tuple[str, bytes]] = ()) -> None:
        self.unpack = unpack
        packed, starts, hashes = bytearray(), array("Q", [0]), array("q")
        for key, record in records:
            packed += record
            starts.append(len(packed))
            hashes.append(hash(key))
        # At most half of the slots are used. A slot has the number of a record, from 1, or 0.
        self._mask = (1 << (2 * len(hashes)).bit_length()) - 1
        slots = array("I", bytes(array("I").itemsize * (self._mask + 1)))
        for number, hashed in enumerate(hashes, 1):
            at = hashed & self._mask
            while slots[at]:
                at = at + 1 & self._mask
            slots[at] = number
        self._records, self._starts, self._slots = memoryview(packed), starts, slots

    def find(self, key: str) -> bytes | None:
        """Return the record of a key; None if there is none."""
        prefix = key.encode(errors="surrogatepass")
        if _END_OF_KEY in prefix:
            return None  # it would be found as the key and the beginning of a record
        prefix += _END_OF_KEY
        at = hash(key) & self._mask
        while number := self._slots[at]:
            record = bytes(self._records[self._starts[number - 1] : self._starts[number]])
            if record.startswith(prefix):
                return record
            at = at + 1 & self._mask
        return None

    def __iter__(self) -> Iterator[str]:
        """Yield the key of each record, in the order in which they were given."""
        for number in range(len(self)):
            record = bytes(self._records[self._starts[number] : self._starts[number + 1]])
            yield record.partition(_END_OF_KEY)[0].decode()

    def __len__(self) -> int:
        return len(self._starts) - 1


def _no_records(record: bytes) -> Any:
    raise ValueError(record)


class ShardedMap(Mapping[str, Value], Generic[Value]):
    """An immutable mapping, so that a reader in another thread sees either all of a change or none.

    A value may be given as a record of the table, which is unpacked when it is asked for.
    """

    __slots__ = ("_length", "_shards", "_table")

    def __init__(
        self, entries: Iterable[tuple[str, Value | bytes]] = (), table: PackedTable[Value] | None = None
    ) -> None:
        # None marks a key that is in the table and not in the mapping.
        used: dict[int, dict[str, Value | bytes | None]] = {}
        for key, value in entries:
            used.setdefault(hash(key) % _SHARDS, {})[key] = value
        # All empty shards are one dict, which takes less time than 1,024; a shard never changes.
        shards: list[dict[str, Value | bytes | None]] = [{}] * _SHARDS
        for at, shard in used.items():
            shards[at] = shard
        self._shards = tuple(shards)
        self._table = PackedTable[Value](_no_records) if table is None else table
        self._length = len(self._table) + sum(map(len, used.values()))

    def replaced(self, keys: Iterable[str], values: Mapping[str, Value | bytes]) -> ShardedMap[Value]:
        """Return a copy in which these keys have the given values; a key without a value is absent from the copy."""
        copies: dict[int, dict[str, Value | bytes | None]] = {}
        length = self._length
        for key in set(keys):
            at = hash(key) % _SHARDS
            if at not in copies:
                copies[at] = self._shards[at].copy()
            length += (key in values) - (key in self)
            if key in values:
                copies[at][key] = values[key]
            elif self._table.find(key) is None:
                copies[at].pop(key, None)
            else:
                copies[at][key] = None
        if not copies:
            return self
        changed: ShardedMap[Value] = ShardedMap.__new__(ShardedMap)
        changed._shards = tuple(copies.get(at, shard) for at, shard in enumerate(self._shards))
        changed._table, changed._length = self._table, length
        return changed

    def unpacked(self) -> Iterator[str]:
        """Yield the keys whose values are not packed."""
        for shard in self._shards:
            yield from (key for key, value in shard.items() if not (value is None or isinstance(value, bytes)))

    def get(self, key: str, default: Value | None = None) -> Value | None:  # type: ignore[override]
        """Return the value or the default. The inherited method is slower: it raises and catches for a missing key."""
        found = self._found(key)
        if isinstance(found, bytes):
            return self._table.unpack(found)
        return default if found is None else found

    def _found(self, key: str) -> Value | bytes | None:
        shard = self._shards[hash(key) % _SHARDS]
        return shard[key] if key in shard else self._table.find(key)

    def __getitem__(self, key: str) -> Value:
        value = self.get(key)
        if value is None:
            raise KeyError(key)
        return value

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._found(key) is not None

    def __iter__(self) -> Iterator[str]:
        for shard in self._shards:
            yield from (key for key, value in shard.items() if value is not None)
        yield from (key for key in self._table if key not in self._shards[hash(key) % _SHARDS])

    def __len__(self) -> int:
        return self._length

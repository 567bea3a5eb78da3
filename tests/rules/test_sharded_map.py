"""The immutable mapping with cheap changed copies."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from authsvc.policy.sharded_map import PackedTable, ShardedMap

NAMES = st.sampled_from([f"device-{n}" for n in range(20)])
ENTRIES = st.dictionaries(NAMES, st.integers())


@given(before=ENTRIES, keys=st.sets(NAMES), fresh=ENTRIES)
def test_changed_copy_equals_a_changed_dict_and_the_original_is_unchanged(
    before: dict[str, int], keys: set[str], fresh: dict[str, int]
) -> None:
    original = ShardedMap(before.items())
    changed = original.replaced(keys, fresh)
    expected = {key: value for key, value in before.items() if key not in keys}
    expected |= {key: value for key, value in fresh.items() if key in keys}
    assert dict(changed) == expected == {key: changed[key] for key in changed}
    assert len(changed) == len(expected)
    assert dict(original) == before
    assert all(changed.get(key) == expected.get(key) for key in keys)


def packed(key: str, value: int) -> bytes:
    return f"{key}\x1e{value}".encode()


@given(table=ENTRIES, others=ENTRIES, keys=st.sets(NAMES), fresh=ENTRIES)
def test_mapping_over_a_table_equals_a_dict_after_each_change(
    table: dict[str, int], others: dict[str, int], keys: set[str], fresh: dict[str, int]
) -> None:
    records = PackedTable(
        lambda record: int(record.partition(b"\x1e")[2]), ((k, packed(k, v)) for k, v in table.items())
    )
    expected = {**others, **table}
    now = ShardedMap([(key, value) for key, value in others.items() if key not in table], records)
    assert dict(now) == expected
    for values in (fresh, {key: packed(key, value) for key, value in fresh.items()}, {}):
        before, then = dict(expected), now
        now = now.replaced(keys, values)
        expected = {key: value for key, value in expected.items() if key not in keys}
        expected |= {key: fresh[key] for key in keys if key in values}
        assert dict(now) == expected
        assert len(now) == len(expected)
        assert all((key in now) == (key in expected) and now.get(key) == expected.get(key) for key in keys)
        assert dict(then) == before


def test_table_finds_each_of_many_keys_and_no_other() -> None:
    table = PackedTable(lambda record: record, ((f"device-{n}", packed(f"device-{n}", n)) for n in range(5000)))
    assert all(table.find(f"device-{n}") == packed(f"device-{n}", n) for n in range(5000))
    assert table.find("device-5000") is None
    assert table.find("device") is None
    assert table.find("\ud800") is None
    assert list(table)[:2] == ["device-0", "device-1"]


def test_key_with_the_beginning_of_a_record_is_not_found() -> None:
    for n in range(100):
        record = b"%d\x1efield\x1e" % n
        assert PackedTable(lambda found: found, [(str(n), record)]).find(f"{n}\x1efield") is None


def test_an_absent_key_has_the_default() -> None:
    assert ShardedMap([("a", 1)]).get("b") is None
    assert ShardedMap([("a", 1)]).get("b", 2) == 2
    assert "b" not in ShardedMap([("a", 1)])


def test_changing_one_of_200_000_entries_is_5_times_faster_than_copying_all() -> None:
    entries = {f"device-{n}": n for n in range(200_000)}
    many = ShardedMap(entries.items())

    def fastest(work: object) -> float:
        times = []
        for _ in range(5):
            begun = time.perf_counter()
            work()  # type: ignore[operator]
            times.append(time.perf_counter() - begun)
        return min(times)

    assert fastest(lambda: many.replaced(["device-7"], {"device-7": 0})) < fastest(entries.copy) / 5

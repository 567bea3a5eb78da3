"""A file with 100,000 users: it is applied, and the change reaches snapshots and the plugins' streams."""

from __future__ import annotations

import asyncio
from time import process_time
from typing import TYPE_CHECKING

import pytest

from authsvc.broker.change_streams import MAX_WAITING, ChangeStream
from authsvc.policy_file import text
from authsvc.policy_file.plan import PlanOptions
from authsvc.policy_file.writing import apply
from authsvc.storage.changes import changes_since
from authsvc.storage.database import session
from tests.actors import OPERATOR, mqtt
from tests.storage.environment import loaded_policy

if TYPE_CHECKING:
    from authsvc.policy.snapshot import SnapshotChange

pytestmark = [pytest.mark.usefixtures("prepared"), pytest.mark.slow]

MANY = 100_000
MAX_SECONDS = 60  # of processor time; about 20 s on the machine of docs/performance.md


def a_file(users: int, topic: str = "plant") -> str:
    rules = "".join(f"  - readWrite {topic}/NUMBER/{rule}/#\n" for rule in range(5))
    block = f"- username: device-NUMBER\n  permissions:\n{rules}"
    return "users:\n" + "".join(block.replace("NUMBER", str(number)) for number in range(users))


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_100_000_users_are_created_within_60_seconds_and_change_every_snapshot() -> None:
    policy = loaded_policy()
    told: list[SnapshotChange] = []
    policy.subscribe(told.append)
    before = policy.snapshot.version
    started = process_time()
    plan = apply(OPERATOR, text.parse(a_file(MANY)), PlanOptions())
    assert process_time() - started < MAX_SECONDS
    assert plan.counts()["created"] == MANY
    with session():
        changes = changes_since(before)
    assert changes is not None
    assert len(changes) == MANY
    policy.catch_up()
    assert policy.snapshot.version == before + 1
    assert len(policy.snapshot.users) == MANY + 1
    assert mqtt("readWrite", "plant/99999/4/#") in policy.snapshot.users["device-99999"].permissions
    assert [len(change.users) for change in told] == [MANY]
    assert not apply(OPERATOR, text.parse(a_file(MANY)), PlanOptions()).changes


def test_a_stream_names_few_changed_users_and_asks_for_everything_after_many() -> None:
    policy = loaded_policy()
    told: list[SnapshotChange] = []
    policy.subscribe(told.append)

    def lines_after(users: int, topic: str) -> bytes:
        apply(OPERATOR, text.parse(a_file(users, topic)), PlanOptions())
        policy.catch_up()
        stream = ChangeStream("boot", 1)
        stream.add(told[-1])
        return asyncio.run(stream.next_lines())

    assert b'"device-7"' in lines_after(10, "a")
    many = lines_after(MAX_WAITING + 1, "b")
    assert b"device" not in many
    assert b'{"version":%d,"all":true}' % policy.snapshot.revision in many

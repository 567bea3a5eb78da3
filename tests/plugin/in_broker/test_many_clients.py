"""10,000 connected clients, and the memory that the plugin needs for each."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.broker import Mosquitto, free_port
from tests.plugin.fake_service import wait_for
from tests.plugin.in_broker.raw_mqtt import ACCEPTED, RawClient, connect_packet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.plugin.in_broker.site import Site

CLIENTS = 10_000
AT_ONCE = 50
MOST_BYTES = 2048  # for a client, of which its user has one rule


@pytest.fixture
def many_files() -> Iterator[None]:
    """Allow this process and the broker to have a connection for each client."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] != resource.RLIM_INFINITY and before[1] < CLIENTS + 1000:
        pytest.skip("needs a hard limit of 11,000 open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (CLIENTS + 1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def resident(broker: Mosquitto) -> int:
    """Return the resident memory of a broker in bytes."""
    lines = Path(f"/proc/{broker.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def memory_of_clients(broker: Mosquitto, users: list[str]) -> tuple[float, list[RawClient]]:
    """Connect a client for each user; return how many bytes each needs in the broker, and the clients."""
    before = resident(broker)
    clients: list[RawClient] = []
    for first in range(0, len(users), AT_ONCE):
        some = [RawClient(broker.port) for _ in users[first : first + AT_ONCE]]
        for number, client in enumerate(some, start=first):
            client.send(connect_packet(f"client-{number}", users[number].encode(), b"secret"))
        assert {client.read(4) for client in some} == {ACCEPTED}
        clients += some
    return (resident(broker) - before) / len(users), clients


@pytest.mark.slow
@pytest.mark.parametrize("has_user_of_its_own", [True, False], ids=["users of their own", "one user"])
def test_10_000_clients_need_at_most_2_kb_each(
    new_site: Callable[..., Site], tmp_path: Path, many_files: None, has_user_of_its_own: bool
) -> None:
    site = new_site()
    site.wait_until_up()
    shared = site.user("readWrite a/%u/#")
    users = [site.user("readWrite a/%u/#") if has_user_of_its_own else shared for _ in range(CLIENTS)]
    assert site.code(shared) == 0
    with_plugin, clients = memory_of_clients(site.broker, users)
    wait_for(lambda: len({client["id"] for client in site.reported("connected")}) >= CLIENTS, 60)
    assert clients[0].ping() < 1
    for client in clients:
        client.close()
    wait_for(lambda: len(site.reported("disconnected")) >= CLIENTS, 60)

    config = f"listener {free_port()} 127.0.0.1\nallow_anonymous true\npersistence false\n"
    with Mosquitto(config, tmp_path) as open_broker:
        without, clients = memory_of_clients(open_broker, users)
        for client in clients:
            client.close()
    if not site.build.is_sanitized:
        assert with_plugin - without < MOST_BYTES, f"{with_plugin:.0f} bytes, {without:.0f} of them Mosquitto's own"

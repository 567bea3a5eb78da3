"""go-auth's published image with the shipped configuration, the image of authsvc, and PostgreSQL.

All run in containers on a network of their own, under the host names of `compose.yaml`.
"""

from __future__ import annotations

import gc
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
import yaml
from docker.errors import DockerException  # type: ignore[import-untyped]
from testcontainers.community.postgres import PostgresContainer
from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient
from testcontainers.core.image import DockerImage
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import HttpWaitStrategy, LogMessageWaitStrategy

from tests.brokers import end_to_end
from tests.brokers.site import Site
from tests.devices import BOTH_PROTOCOLS, NOT_AUTHORIZED, V5
from tests.service import ADMIN_PASSWORD, Api

if TYPE_CHECKING:
    from collections.abc import Iterator

    from paho.mqtt.enums import MQTTProtocolVersion

# Docker's client library does not close all its connections itself.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "deploy" / "mosquitto"
MOSQUITTO_PORT, AUTHSVC_PORT = 1883, 8080
SECRETS = {"AUTHSVC_ADMIN_PASSWORD": ADMIN_PASSWORD, "AUTHSVC_WEBHOOK_SECRET": "between-broker-and-service"}


@pytest.fixture(scope="module")
def docker_engine() -> None:
    """Skip unless a Docker engine answers."""
    complaint = _complaint_of_docker()
    gc.collect()
    if complaint:
        pytest.skip(f"no Docker engine answers: {complaint}")


def _complaint_of_docker() -> str:
    try:
        client = DockerClient().client
        client.ping()
    except DockerException as error:
        return str(error)
    client.close()
    return ""


class ContainerBroker:
    """The address on which a broker's container accepts devices."""

    def __init__(self, container: DockerContainer) -> None:
        self.host = container.get_container_host_ip()
        self.port = container.get_exposed_port(MOSQUITTO_PORT)


def postgres(network: Network, image: str) -> PostgresContainer:
    """Return a PostgreSQL container that is not started."""
    container = PostgresContainer(image, username="authsvc", password="between-both", dbname="authsvc", driver=None)
    return container.with_network(network).with_network_aliases("postgres")


def authsvc(network: Network, image: DockerImage) -> DockerContainer:
    """Return a container of the service that is not started."""
    return (
        DockerContainer(str(image))
        .with_network(network)
        .with_network_aliases("authsvc")
        .with_envs(**SECRETS, AUTHSVC_DATABASE_URL="postgresql://authsvc:between-both@postgres/authsvc")
        .with_exposed_ports(AUTHSVC_PORT)
        .waiting_for(HttpWaitStrategy(AUTHSVC_PORT, "/readyz").for_status_code(200).with_startup_timeout(60))
    )


def mosquitto(network: Network, image: str, pki: Path) -> DockerContainer:
    """Return a container of the broker with the shipped configuration. It is not started."""
    container = DockerContainer(image)
    # Files are copied, not mounted, because the Docker engine may run on another machine.
    for file in ("mosquitto.conf", "start.sh"):
        container.with_copy_into_container(SHIPPED / file, f"/etc/mosquitto/{file}", 0o644)
    container.with_copy_into_container(pki, "/")
    for file in ("server.crt", "server.key"):
        container.with_copy_into_container(pki.parent / "secrets" / file, f"/run/secrets/{file}", 0o644)
    return (
        container.with_network(network)
        .with_kwargs(user="mosquitto")
        .with_command(["/bin/sh", "/etc/mosquitto/start.sh"])
        .with_tmpfs_mount("/run/mosquitto")
        .with_envs(AUTHSVC_WEBHOOK_SECRET=SECRETS["AUTHSVC_WEBHOOK_SECRET"])
        .with_exposed_ports(MOSQUITTO_PORT)
        .waiting_for(LogMessageWaitStrategy(r"mosquitto version \S+ running").with_startup_timeout(60))
    )


def fetch_pki(service: Api, directory: Path) -> Path:
    """Return the files of `/pki` and the output of `make secrets`; every user may write to the directory."""
    subprocess.run([shutil.copy(ROOT / "deploy" / "make-secrets.sh", directory)], check=True)
    pki = directory / "pki"
    pki.mkdir()
    pki.chmod(0o1777)
    for name in ("ca.pem", "crl.pem"):
        (pki / name).write_bytes(service.call("GET", f"/pki/{name}").content)
    return pki


@pytest.fixture(scope="module")
def running(docker_engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Api, ContainerBroker]]:
    """All containers of `compose.yaml` except the one that runs `authsvc crl sync`."""
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    with ExitStack() as stack:
        network = stack.enter_context(Network())
        stack.enter_context(postgres(network, services["postgres"]["image"]))
        image = stack.enter_context(DockerImage(ROOT, tag=f"authsvc-test:{uuid4().hex}"))
        service = stack.enter_context(authsvc(network, image))
        url = f"http://{service.get_container_host_ip()}:{service.get_exposed_port(AUTHSVC_PORT)}"
        api = Api(url, ADMIN_PASSWORD)
        pki = fetch_pki(api, tmp_path_factory.mktemp("broker"))
        broker = stack.enter_context(mosquitto(network, services["mosquitto"]["image"], pki))
        yield api, ContainerBroker(broker)
    gc.collect()


@pytest.fixture
def site(running: tuple[Api, ContainerBroker]) -> Iterator[Site]:
    """The service and the broker with the devices of one test."""
    with Site(*running) as site:
        yield site


@BOTH_PROTOCOLS
def test_device_uses_its_own_topics_and_those_granted_while_it_is_connected(
    site: Site, protocol: MQTTProtocolVersion
) -> None:
    end_to_end.run(site, protocol)


@BOTH_PROTOCOLS
def test_unknown_users_wrong_passwords_and_disabled_users_are_refused(
    site: Site, protocol: MQTTProtocolVersion
) -> None:
    bob = site.add_user("bob")

    assert site.try_to_connect(bob, protocol=protocol) == 0
    assert site.try_to_connect(bob, "wrong", protocol=protocol) == NOT_AUTHORIZED
    assert site.try_to_connect("charlie", protocol=protocol) == NOT_AUTHORIZED
    site.change(site.device(bob), enabled=False)
    assert site.try_to_connect(bob, protocol=protocol) == NOT_AUTHORIZED


def test_refusals_have_a_reason_code_in_mqtt_5_and_close_no_connection(site: Site) -> None:
    bob = site.connected("bob", "write line/#", protocol=V5)
    carol = site.connected("carol", "read line/#", "deny read line/+/recipe", protocol=V5)

    assert carol.subscribe("line/#", "$share/all/line/#", "$SYS/#") == [1, NOT_AUTHORIZED, NOT_AUTHORIZED]
    assert carol.publish("line/1/state", "forged") == NOT_AUTHORIZED
    assert bob.publish("line/1/recipe", "secret") == 0
    assert bob.publish("line/1/state", "running") == 0
    assert carol.received_so_far() == [("line/1/state", b"running")]
    site.change(bob, enabled=False)
    assert bob.publish("line/1/state", "disabled") == NOT_AUTHORIZED
    assert bob.stayed_connected()
    assert carol.stayed_connected()

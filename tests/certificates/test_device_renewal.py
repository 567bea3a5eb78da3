"""`authsvc register --renew` on a device: the pair of key and certificate in its directory, whatever comes in
between."""

from __future__ import annotations

import json
import os
import stat
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from authsvc.errors import AuthsvcError
from authsvc.pki import authorities
from registry.cli import client
from registry.cli.register import command
from tests.actors import OPERATOR
from tests.broker import free_port
from tests.certificates.environment import ON_SQLITE, Scene
from tests.certificates.proofs import in_
from tests.certificates.tools import certificate_for, key_pem, openssl, pem, written
from tests.registry.signing import new_key, spki

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = ON_SQLITE

DAY = timedelta(days=1)
DUE = 250 * DAY


class PowerCut(BaseException):
    """The device is off."""


@pytest.fixture
def device(scene: Scene, server: str, tmp_path: Path) -> client.Enrolment:
    """Bob's device, which has its first certificate."""
    key = new_key()
    directory = tmp_path / "press"
    written(directory, client.KEY, key_pem(key)).chmod(0o600)
    written(directory, client.CERTIFICATE, pem(scene.certifies("bob", key)))
    written(directory, client.CA_CERTIFICATE, scene.ca_pem())
    return client.Enrolment(server, "", directory, with_certificate=True)


def runs(device: client.Enrolment) -> bool:
    return client.renew(device, datetime.now(UTC))


def certificate_in(device: client.Enrolment) -> x509.Certificate:
    return x509.load_pem_x509_certificate((device.directory / client.CERTIFICATE).read_bytes())


def assert_whole(device: client.Enrolment) -> None:
    """Hold what is in the directory to be all that a device needs, and of one piece."""
    names = {path.name for path in device.directory.iterdir()}
    assert names == {client.KEY, client.CERTIFICATE, client.CA_CERTIFICATE}
    key = load_pem_private_key((device.directory / client.KEY).read_bytes(), None)
    assert spki(key.public_key()) == spki(certificate_in(device).public_key())
    assert stat.S_IMODE((device.directory / client.KEY).stat().st_mode) == 0o600
    at = ("-attime", str(int(datetime.now(UTC).timestamp())))
    trusted = device.directory / client.CA_CERTIFICATE
    assert "OK" in openssl("verify", *at, "-CAfile", trusted, device.directory / client.CERTIFICATE)


def test_before_its_time_nothing_happens(device: client.Enrolment) -> None:
    before = certificate_in(device)
    assert runs(device) is False
    assert certificate_in(device) == before
    assert_whole(device)


def test_when_it_is_due_key_and_certificate_are_replaced(device: client.Enrolment) -> None:
    before = certificate_in(device)
    with in_(DUE, tick=True):
        assert runs(device) is True
        assert certificate_in(device).not_valid_after_utc > before.not_valid_after_utc
        assert spki(certificate_in(device).public_key()) != spki(before.public_key())
        assert_whole(device)
        assert runs(device) is False


def test_the_command_says_what_it_did(device: client.Enrolment) -> None:
    def says() -> str:
        arguments = ["--server", device.server, "--renew", "--out", str(device.directory)]
        done = CliRunner().invoke(command, arguments)
        assert done.exit_code == 0, done.output
        return done.output.splitlines()[-1]  # what stands before it is the log of the service

    assert says() == "not renewed: the certificate is due after two thirds of its lifetime"
    with in_(DUE, tick=True):
        assert says() == "renewed; restart the programs that use the certificate"
        assert says() == "not renewed: the certificate is due after two thirds of its lifetime"


def test_the_authoritys_certificate_comes_along(device: client.Enrolment) -> None:
    with in_(DUE, tick=True):
        authorities.rotate(OPERATOR, None, 365 * DAY)
        assert runs(device) is True
        assert_whole(device)


def test_a_no_leaves_all_as_it_was_but_for_the_key_that_waits(scene: Scene, device: client.Enrolment) -> None:
    before = certificate_in(device)
    scene.revokes(before)
    with in_(DUE, tick=True):
        for _ in range(2):
            with pytest.raises(client.Refused, match="403"):
                runs(device)
    (device.directory / client.NEXT_KEY).unlink()
    assert certificate_in(device) == before
    assert_whole(device)


def test_a_server_that_is_away_leaves_all_as_it_was(device: client.Enrolment) -> None:
    before = certificate_in(device)
    nowhere = client.Enrolment(f"http://127.0.0.1:{free_port()}", "", device.directory, with_certificate=True)
    with in_(DUE, tick=True):
        with pytest.raises(client.Refused, match="does not answer"):
            runs(nowhere)
        assert certificate_in(device) == before
        assert runs(device) is True
        assert_whole(device)


def test_a_certificate_for_another_name_or_key_replaces_nothing(
    device: client.Enrolment, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = certificate_in(device)
    following = client._key(device.directory, client.NEXT_KEY)
    post = requests.post
    for wrong in (certificate_for("carol", following), certificate_for("bob", new_key())):

        def answered(*given: Any, wrong: x509.Certificate = wrong, **options: Any) -> requests.Response:
            answer = post(*given, **options)
            answer._content = json.dumps({"certificate": pem(wrong)}).encode()
            return answer

        monkeypatch.setattr(requests, "post", answered)
        with in_(DUE, tick=True), pytest.raises(client.Refused, match="not for this device"):
            runs(device)
        assert certificate_in(device) == before


@pytest.mark.parametrize("content", [None, "", "junk"], ids=["none", "empty", "junk"])
def test_a_certificate_that_is_not_there_is_said_in_one_line(device: client.Enrolment, content: str | None) -> None:
    file = device.directory / client.CERTIFICATE
    file.unlink() if content is None else file.write_text(content)
    with pytest.raises(AuthsvcError):
        runs(device)


# Interrupted.

STEPS = [
    "before the next key is there",
    "before it is asked for",
    "before the answer arrives",
    "before the first file is replaced",
    "before the second file is replaced",
    "before the next key becomes the key",
]


@contextmanager
def power_cut(step: int) -> Iterator[None]:
    """Let the device lose its power just before the step of that number."""
    left = iter(range(step, -1, -1))

    def count() -> None:
        if next(left, -1) == 0:
            raise PowerCut

    def before(act: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*given: Any, **options: Any) -> Any:
            count()
            return act(*given, **options)

        return counted

    post = requests.post

    def ask(*given: Any, **options: Any) -> requests.Response:
        count()
        answer = post(*given, **options)
        count()
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "link", before(os.link))
        patch.setattr(Path, "replace", before(Path.replace))
        patch.setattr(requests, "post", ask)
        yield


def clear_leftovers(device: client.Enrolment) -> None:
    """Remove what was being written when the power went; it has names of its own and is in nobody's way."""
    for leftover in device.directory.glob(".*"):
        leftover.unlink()


def cut_at(device: client.Enrolment, step: int) -> None:
    with power_cut(step), pytest.raises(PowerCut):
        runs(device)


@pytest.mark.parametrize("step", range(1, len(STEPS)), ids=STEPS[1:])
def test_wherever_it_was_interrupted_the_next_run_brings_it_to_its_end(
    scene: Scene, device: client.Enrolment, step: int
) -> None:
    before = certificate_in(device)
    with in_(DUE, tick=True):
        cut_at(device, step)
        assert runs(device) is True
        assert certificate_in(device) != before
        clear_leftovers(device)
        assert_whole(device)
        assert runs(device) is False
    assert scene.admin.get("/api/certificates").get_json()["total"] == 2


def test_there_is_no_other_step(device: client.Enrolment) -> None:
    with in_(DUE, tick=True), power_cut(len(STEPS)):
        assert runs(device) is True


def test_it_may_be_interrupted_again_and_again(scene: Scene, device: client.Enrolment) -> None:
    with in_(DUE, tick=True):
        for step in (1, 1, 0, 1):
            cut_at(device, step)
        assert runs(device) is True
    assert scene.admin.get("/api/certificates").get_json()["total"] == 2


def test_interrupted_while_it_writes_the_next_key_it_is_not_stuck_for_ever(device: client.Enrolment) -> None:
    with in_(DUE, tick=True):
        cut_at(device, 0)
        assert runs(device) is True


def test_interrupted_between_the_files_it_fetches_the_new_authority_too(device: client.Enrolment) -> None:
    with in_(DUE, tick=True):
        authorities.rotate(OPERATOR, None, 365 * DAY)
        cut_at(device, STEPS.index("before the second file is replaced"))
        runs(device)
        runs(device)
        clear_leftovers(device)
        assert_whole(device)

"""`authsvc register --renew` on a device: the key and certificate in its directory, also after interruptions."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from authsvc.errors import AuthsvcError
from authsvc.pki import authorities
from registry.cli import client, transport
from registry.cli.register import command
from tests.actors import OPERATOR
from tests.broker import free_port
from tests.certificates.environment import ON_SQLITE, Environment
from tests.certificates.proofs import travel
from tests.certificates.tools import certificate_for, key_pem, openssl, pem, write_file
from tests.registry.signing import new_key, spki

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = ON_SQLITE

DAY = timedelta(days=1)
DUE = 250 * DAY


class PowerCut(BaseException):
    """The device loses power."""


@pytest.fixture
def device(env: Environment, server: str, tmp_path: Path) -> client.Enrolment:
    """Return the enrolment of bob's device with its first certificate."""
    key = new_key()
    directory = tmp_path / "press"
    write_file(directory, client.KEY, key_pem(key)).chmod(0o600)
    write_file(directory, client.CERTIFICATE, pem(env.issue_certificate("bob", key)))
    write_file(directory, client.CA_CERTIFICATE, env.ca_pem())
    return client.Enrolment(server, "", directory, with_certificate=True)


def runs(device: client.Enrolment) -> bool:
    return client.renew(device, datetime.now(UTC))


def certificate_in(device: client.Enrolment) -> x509.Certificate:
    return x509.load_pem_x509_certificate((device.directory / client.CERTIFICATE).read_bytes())


def assert_whole(device: client.Enrolment) -> None:
    """Assert that the directory holds a complete and matching pair."""
    names = {path.name for path in device.directory.iterdir()}
    assert names == {client.KEY, client.CERTIFICATE, client.CA_CERTIFICATE}
    key = load_pem_private_key((device.directory / client.KEY).read_bytes(), None)
    assert spki(key.public_key()) == spki(certificate_in(device).public_key())
    assert stat.S_IMODE((device.directory / client.KEY).stat().st_mode) == 0o600
    at = ("-attime", str(int(datetime.now(UTC).timestamp())))
    trusted = device.directory / client.CA_CERTIFICATE
    assert "OK" in openssl("verify", *at, "-CAfile", trusted, device.directory / client.CERTIFICATE)


def test_certificate_is_not_renewed_before_it_is_due(device: client.Enrolment) -> None:
    before = certificate_in(device)
    assert runs(device) is False
    assert certificate_in(device) == before
    assert_whole(device)


def test_due_renewal_replaces_key_and_certificate(device: client.Enrolment) -> None:
    before = certificate_in(device)
    with travel(DUE, tick=True):
        assert runs(device) is True
        assert certificate_in(device).not_valid_after_utc > before.not_valid_after_utc
        assert spki(certificate_in(device).public_key()) != spki(before.public_key())
        assert_whole(device)
        assert runs(device) is False


def test_command_prints_what_it_did(device: client.Enrolment) -> None:
    def says() -> str:
        arguments = ["--server", device.server, "--renew", "--out", str(device.directory)]
        done = CliRunner().invoke(command, arguments)
        assert done.exit_code == 0, done.output
        return done.output.splitlines()[-1]  # what stands before it is the log of the service

    assert says() == "not renewed: the certificate is due after two thirds of its lifetime"
    with travel(DUE, tick=True):
        assert says() == "renewed; restart the programs that use the certificate"
        assert says() == "not renewed: the certificate is due after two thirds of its lifetime"


def test_renewal_updates_the_authoritys_certificate(device: client.Enrolment) -> None:
    with travel(DUE, tick=True):
        authorities.rotate(OPERATOR, None, 365 * DAY)
        assert runs(device) is True
        assert_whole(device)


def test_refused_renewal_leaves_the_pair_and_keeps_the_next_key(env: Environment, device: client.Enrolment) -> None:
    before = certificate_in(device)
    env.revoke_certificate(before)
    with travel(DUE, tick=True):
        for _ in range(2):
            with pytest.raises(client.Refused, match="403"):
                runs(device)
    (device.directory / client.NEXT_KEY).unlink()
    assert certificate_in(device) == before
    assert_whole(device)


def test_unreachable_server_changes_nothing(device: client.Enrolment) -> None:
    before = certificate_in(device)
    nowhere = client.Enrolment(f"http://127.0.0.1:{free_port()}", "", device.directory, with_certificate=True)
    with travel(DUE, tick=True):
        with pytest.raises(client.Refused, match="does not answer"):
            runs(nowhere)
        assert certificate_in(device) == before
        assert runs(device) is True
        assert_whole(device)


def test_certificate_for_another_name_or_key_is_not_stored(
    device: client.Enrolment, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = certificate_in(device)
    following = client._key(device.directory, client.NEXT_KEY)
    post = transport.post
    for wrong in (certificate_for("carol", following), certificate_for("bob", new_key())):

        def answered(*given: Any, wrong: x509.Certificate = wrong, **options: Any) -> transport.Answer:
            return post(*given, **options)._replace(body={"certificate": pem(wrong)})

        monkeypatch.setattr("registry.cli.client.post", answered)
        with travel(DUE, tick=True), pytest.raises(client.Refused, match="not for this device"):
            runs(device)
        assert certificate_in(device) == before


@pytest.mark.parametrize("content", [None, "", "junk"], ids=["none", "empty", "junk"])
def test_missing_certificate_is_reported_in_one_line(device: client.Enrolment, content: str | None) -> None:
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
    """Raise `PowerCut` before the step with this number."""
    left = iter(range(step, -1, -1))

    def count() -> None:
        if next(left, -1) == 0:
            raise PowerCut

    def before(act: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*given: Any, **options: Any) -> Any:
            count()
            return act(*given, **options)

        return counted

    post = transport.post

    def ask(*given: Any, **options: Any) -> transport.Answer:
        count()
        answer = post(*given, **options)
        count()
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "link", before(os.link))
        patch.setattr(Path, "replace", before(Path.replace))
        patch.setattr("registry.cli.client.post", ask)
        yield


def clear_leftovers(device: client.Enrolment) -> None:
    """Delete the temporary files of the interrupted run."""
    for leftover in device.directory.glob(".*"):
        leftover.unlink()


def cut_at(device: client.Enrolment, step: int) -> None:
    with power_cut(step), pytest.raises(PowerCut):
        runs(device)


@pytest.mark.parametrize("step", range(1, len(STEPS)), ids=STEPS[1:])
def test_next_run_completes_a_renewal_interrupted_at_any_step(
    env: Environment, device: client.Enrolment, step: int
) -> None:
    before = certificate_in(device)
    with travel(DUE, tick=True):
        cut_at(device, step)
        assert runs(device) is True
        assert certificate_in(device) != before
        clear_leftovers(device)
        assert_whole(device)
        assert runs(device) is False
    assert env.admin.get("/api/certificates").get_json()["total"] == 2


def test_all_steps_are_tested(device: client.Enrolment) -> None:
    with travel(DUE, tick=True), power_cut(len(STEPS)):
        assert runs(device) is True


def test_renewal_can_be_interrupted_repeatedly(env: Environment, device: client.Enrolment) -> None:
    with travel(DUE, tick=True):
        for step in (1, 1, 0, 1):
            cut_at(device, step)
        assert runs(device) is True
    assert env.admin.get("/api/certificates").get_json()["total"] == 2


def test_interruption_while_writing_the_next_key_does_not_block_renewal(device: client.Enrolment) -> None:
    with travel(DUE, tick=True):
        cut_at(device, 0)
        assert runs(device) is True


def test_interruption_between_the_files_also_updates_the_authority(device: client.Enrolment) -> None:
    with travel(DUE, tick=True):
        authorities.rotate(OPERATOR, None, 365 * DAY)
        cut_at(device, STEPS.index("before the second file is replaced"))
        runs(device)
        runs(device)
        clear_leftovers(device)
        assert_whole(device)

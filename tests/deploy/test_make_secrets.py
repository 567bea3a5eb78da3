"""`make secrets`: everything that compose.yaml asks for, made once and kept."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.deploy.shipped import ROOT, compose, run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """The directory that a copy of the script has filled, where it harms nobody's real secrets."""
    shutil.copy(ROOT / "deploy/make-secrets.sh", tmp_path)
    made = run(tmp_path / "make-secrets.sh")
    assert made.returncode == 0, made.stderr
    return tmp_path / "secrets"


def contents(secrets: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in secrets.iterdir()}


def test_it_makes_each_secret_that_compose_asks_for(secrets: Path) -> None:
    assert set(contents(secrets)) == set(compose()["secrets"])


def test_secrets_are_long_and_all_different(secrets: Path) -> None:
    values = contents(secrets).values()
    assert all(len(value) >= 48 for value in values)
    assert len(set(values)) == len(values)


def test_the_database_url_holds_the_database_password(secrets: Path) -> None:
    made = contents(secrets)
    assert made["database_url"] == f"postgresql://authsvc:{made['postgres_password']}@postgres/authsvc"


def test_no_other_user_gets_in_and_every_container_can_read_its_file(secrets: Path) -> None:
    assert secrets.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in secrets.iterdir()} == {0o644}


def test_first_run_says_that_the_certificate_is_self_signed(tmp_path: Path) -> None:
    shutil.copy(ROOT / "deploy/make-secrets.sh", tmp_path)
    assert "server.crt is self-signed" in run(tmp_path / "make-secrets.sh").stdout


def test_a_second_run_changes_nothing_and_fills_what_is_missing(secrets: Path) -> None:
    before = contents(secrets)
    (secrets / "webhook_secret").unlink()
    again = run(secrets.parent / "make-secrets.sh")
    after = contents(secrets)
    assert again.stdout == "created deploy/secrets/webhook_secret\n"
    assert after.pop("webhook_secret") != before.pop("webhook_secret")
    assert after == before


def test_the_server_has_a_certificate_for_a_first_try(secrets: Path) -> None:
    certificate = x509.load_pem_x509_certificate((secrets / "server.crt").read_bytes())
    key = serialization.load_pem_private_key((secrets / "server.key").read_bytes(), None)
    assert certificate.public_key() == key.public_key()
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "mosquitto"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    certificate.verify_directly_issued_by(certificate)


def test_a_certificate_that_was_brought_is_kept_and_wants_its_key(secrets: Path) -> None:
    (secrets / "server.crt").write_text("from another authority")
    assert run(secrets.parent / "make-secrets.sh").stdout == ""
    (secrets / "server.key").unlink()
    again = run(secrets.parent / "make-secrets.sh")
    assert (again.returncode, again.stdout) == (1, "")
    assert "server.crt exists without server.key" in again.stderr
    assert (secrets / "server.crt").read_text() == "from another authority"


def test_what_cannot_be_made_is_not_there(tmp_path: Path) -> None:
    shutil.copy(ROOT / "deploy/make-secrets.sh", tmp_path)
    (tmp_path / "openssl").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "openssl").chmod(0o755)
    made = run(tmp_path / "make-secrets.sh", environment={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    complaint = "deploy/secrets/server.key could not be created; see the error above"
    assert (made.returncode, made.stderr) == (1, f"make-secrets.sh: {complaint}\n")
    assert not (tmp_path / "secrets/server.key").exists()

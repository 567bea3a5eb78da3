"""`make secrets`: everything that compose.yaml asks for, made once and kept."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

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


def test_a_second_run_changes_nothing_and_fills_what_is_missing(secrets: Path) -> None:
    before = contents(secrets)
    (secrets / "webhook_secret").unlink()
    again = run(secrets.parent / "make-secrets.sh")
    after = contents(secrets)
    assert again.stdout == "made deploy/secrets/webhook_secret\n"
    assert after.pop("webhook_secret") != before.pop("webhook_secret")
    assert after == before

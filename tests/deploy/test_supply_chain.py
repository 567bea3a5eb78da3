"""What is deployed is known to the byte: locked with hashes, images by digest, and asked about for vulnerabilities."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from importlib.metadata import distribution
from typing import TYPE_CHECKING, Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deploy.shipped import ROOT

if TYPE_CHECKING:
    from pathlib import Path

LOCKED = re.compile(r"(?P<name>[a-z0-9.-]+)==(?P<version>[^ ]+)(?P<hashes>(?: --hash=sha256:[0-9a-f]{64})+)")
EACH_LOCK = pytest.mark.parametrize("file", ["requirements.lock", "requirements-build.lock"])


def locked(file: str) -> dict[str, str]:
    """Return the versions that a lock names; each of its lines must be a version with hashes."""
    text = re.sub(r"\s*\\\n\s*", " ", (ROOT / file).read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    matches = [LOCKED.fullmatch(line) for line in lines]
    assert all(matches), [line[:80] for line, match in zip(lines, matches, strict=True) if not match]
    return {canonicalize_name(match["name"]): match["version"] for match in matches if match}


def wanted() -> list[Requirement]:
    """Return what setup.cfg asks for."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    return [Requirement(line) for line in setup["options"]["install_requires"].split("\n") if line]


def everything_needed_by(requirements: list[Requirement]) -> list[Requirement]:
    """Return requirements with all that they need in turn, by what the installed packages say."""
    found: list[Requirement] = []
    open_ones, known = list(requirements), set[tuple[str, str]]()
    while open_ones:
        requirement = open_ones.pop()
        found.append(requirement)
        for extra in {"", *requirement.extras}:
            name = canonicalize_name(requirement.name)
            if (name, extra) in known:
                continue
            known.add((name, extra))
            needed = map(Requirement, distribution(name).requires or ())
            open_ones += [one for one in needed if one.marker is None or one.marker.evaluate({"extra": extra})]
    return found


@EACH_LOCK
def test_every_locked_version_has_hashes_and_no_index_is_named(file: str) -> None:
    assert locked(file)
    assert "://" not in (ROOT / file).read_text()


def test_the_lock_satisfies_setup_cfg_and_all_that_it_needs() -> None:
    versions = locked("requirements.lock")
    for requirement in everything_needed_by(wanted()):
        version = versions.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement} is not locked: make lock"
        assert requirement.specifier.contains(version), f"{requirement} is locked at {version}: make lock"


def test_the_build_lock_satisfies_pyproject() -> None:
    (requires,) = re.findall(r"^requires = \[(.*)\]$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    versions = locked("requirements-build.lock")
    for requirement in [Requirement(each.strip().strip('"')) for each in requires.split(",")]:
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)])


def test_the_image_installs_nothing_without_a_hash() -> None:
    dockerfile = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())
    commands = [part for line in dockerfile.splitlines() for part in line.split("&&")]
    installing = [part for part in commands if re.search(r"\bpip\b.* (install|wheel)\b", part)]
    assert len(installing) == 4
    for part in installing:
        assert "--require-hashes" in part or "--no-deps" in part
    assert "--no-build-isolation" in dockerfile
    copied = {file for line in dockerfile.splitlines() if line.startswith("COPY") for file in line.split()[1:-1]}
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {"requirements.lock", "requirements-build.lock"} <= copied & allowed


# Images.

DIGESTS = ("sha256:" + "a1" * 32, "sha256:" + "b2" * 32)


def pin_images(directory: Path, digest: str) -> subprocess.CompletedProcess[str]:
    """Run the script on a copy of the shipped files, with a docker that knows one digest for everything."""
    (directory / "deploy").mkdir(exist_ok=True)
    shutil.copy(ROOT / "deploy" / "pin-images.sh", directory / "deploy")
    fake = directory / "bin" / "docker"
    fake.parent.mkdir(exist_ok=True)
    fake.write_text(f"#!/bin/sh\necho {digest}\n")
    fake.chmod(0o755)
    environment = {"PATH": f"{fake.parent}:/usr/bin:/bin"}
    script = directory / "deploy" / "pin-images.sh"
    return subprocess.run([script], env=environment, capture_output=True, text=True, check=False)


def images(directory: Path) -> list[str]:
    """Return the images that Dockerfile and compose.yaml name."""
    text = "".join((directory / name).read_text() for name in ("Dockerfile", "compose.yaml"))
    return re.findall(r"^(?:FROM| +image:) (\S+)", text, re.MULTILINE)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A directory with the files that name images."""
    for name in ("Dockerfile", "compose.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def test_digests_are_written_behind_each_tag_and_replaced_the_next_time(copy: Path) -> None:
    before = [image.partition("@")[0] for image in images(copy)]
    for digest in DIGESTS:
        done = pin_images(copy, digest)
        assert done.returncode == 0, done.stderr
        assert images(copy) == [f"{image}@{digest}" for image in before]
    assert (copy / "Dockerfile").read_text().count(" AS build\n") == 1


@pytest.mark.parametrize("answer", ["", "unauthorized", "sha256:short"])
def test_without_an_answer_from_the_registry_nothing_is_written_and_it_says_so(copy: Path, answer: str) -> None:
    before = images(copy)
    done = pin_images(copy, answer)
    assert done.returncode == 1
    assert "cannot be looked up" in done.stderr
    assert images(copy) == before


# Vulnerabilities.

FINE = {"name": "flask", "version": "3.1.3", "vulns": []}
BAD = {"name": "rich", "version": "15", "vulns": [{"id": "PYSEC-1", "fix_versions": ["16"], "aliases": []}]}
SKIPPED = {"name": "click", "skip_reason": "Dependency not found on PyPI and could not be audited: click (8)"}


def audit(directory: Path, said: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the audit with a pip-audit that says this."""
    (directory / "said").write_text(said)
    fake = directory / "pip-audit"
    fake.write_text(f"#!/bin/sh\ncat '{directory}/said'\necho 'api: name not known' >&2\nexit {status}\n")
    fake.chmod(0o755)
    command = [sys.executable, str(ROOT / "deploy" / "audit.py"), str(fake), "requirements.lock"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("dependencies", "status", "said"),
    [
        ([FINE], 0, "No known vulnerability in 1 dependencies"),
        ([FINE, BAD], 1, "rich 15: PYSEC-1, fixed in 16"),
        ([SKIPPED], 2, "Not audited: the vulnerability database had no answer for 1 of 1"),
        ([FINE, SKIPPED], 2, "Not audited"),
        ([BAD, SKIPPED], 1, "Not audited"),
        ([], 2, ""),
    ],
)
def test_an_audit_gives_the_all_clear_only_if_everything_was_looked_up(
    tmp_path: Path, dependencies: list[dict[str, Any]], status: int, said: str
) -> None:
    done = audit(tmp_path, json.dumps({"dependencies": dependencies, "fixes": []}))
    assert done.returncode == status
    assert said in done.stdout + done.stderr


def test_an_audit_says_that_the_database_cannot_be_reached(tmp_path: Path) -> None:
    done = audit(tmp_path, "", status=1)
    assert done.returncode == 2
    assert done.stderr == "Not audited: the vulnerability database cannot be reached.\napi: name not known\n"

"""The wheel, as `pipx install` gets it: built, installed into a new environment, and served from there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests

from tests.deploy.shipped import ROOT
from tests.service import ADMIN_PASSWORD, Service

if TYPE_CHECKING:
    from collections.abc import Iterator


pytestmark = pytest.mark.slow  # builds a wheel and a new environment


class InstalledService(Service):
    """`authsvc serve` of another environment, from a directory that is no checkout."""

    executable: Path

    def launch(self) -> None:
        """Start the service without waiting until it is ready."""
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [self.executable, "serve"],
                env=self.environment,
                cwd=self.log_file.parent,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel. The libraries are those of this environment, to save time."""
    directory = tmp_path_factory.mktemp("wheel")
    # Building writes into the source tree.
    source = directory / "source"
    source.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"):
        shutil.copy(ROOT / name, source)
    for name in ("authsvc", "registry", "docs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "screenshots"))
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", directory, source], check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory / "venv"], check=True)
    (wheel,) = directory.glob("*.whl")
    python = directory / "venv" / "bin" / "python"
    subprocess.run([*pip, "--python", python, "install", "--no-deps", "--no-index", wheel], check=True)
    return directory / "venv"


@pytest.fixture
def installed(environment: Path, tmp_path: Path) -> Iterator[InstalledService]:
    """The installed service, not started."""
    service = InstalledService(tmp_path)
    service.executable = environment / "bin" / "authsvc"
    # The checkout is installed here in editable form, so this path has the libraries and not authsvc.
    service.environment |= {"PATH": os.environ["PATH"], "PYTHONPATH": sysconfig.get_path("purelib")}
    yield service
    service.kill()


def run(service: InstalledService, *arguments: str) -> str:
    done = subprocess.run(
        [service.executable, *arguments],
        env=service.environment,
        cwd=service.log_file.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_wheel_has_every_file_of_the_packages_and_the_documents(environment: Path) -> None:
    (packages,) = (environment / "lib").glob("python3*/site-packages")
    for name in ("authsvc", "registry"):
        files = {path.relative_to(ROOT) for path in (ROOT / name).rglob("*") if path.is_file()}
        wanted = {path for path in files if "__pycache__" not in path.parts}
        assert not [path for path in sorted(wanted) if not (packages / path).is_file()]
    documents = environment / "share" / "doc" / "authsvc"
    wanted = {path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")}
    assert {path.relative_to(documents) for path in documents.rglob("*.md")} == wanted | {Path("CHANGELOG.md")}


def test_installed_service_starts_and_shows_its_pages(installed: InstalledService) -> None:
    run(installed, "init")
    with installed:
        page = requests.get(installed.url + "/admin/sign-in", timeout=20)
        assert (page.status_code, "Password" in page.text) == (200, True)
        (style,) = [part for part in page.text.split('"') if part.endswith(".css")][:1]
        assert requests.get(installed.url + style, timeout=20).status_code == 200
        documentation = requests.get(installed.url + "/api/docs", auth=("admin", ADMIN_PASSWORD), timeout=20)
        assert documentation.status_code == 200
        assert requests.get(installed.url + "/api/openapi.json", auth=("admin", ADMIN_PASSWORD), timeout=20).json()
        assert installed.call("GET", "/admin/client-registry").status_code == 200
    assert "listener 8883" in run(installed, "broker-config")

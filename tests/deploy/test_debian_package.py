"""The Debian package: built, installed with dpkg into a directory of its own, used, upgraded and purged."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from authsvc import __version__
from tests.deploy.shipped import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="dpkg is not installed"),
    pytest.mark.skipif(os.getuid() != 0, reason="dpkg installs as root only"),
]


class Machine:
    """A directory in which dpkg installs. Maintainer scripts run outside of it, with DPKG_ROOT."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("var/lib/dpkg/info", "var/lib/dpkg/updates", "etc"):
            (root / name).mkdir(parents=True)
        (root / "var/lib/dpkg/status").touch()

    def dpkg(self, *arguments: str | Path, **environment: str) -> str:
        """Run dpkg, without the packages that this one depends on."""
        options = (f"--root={self.root}", "--force-script-chrootless", "--force-depends", "--log=/dev/null")
        done = subprocess.run(
            ["dpkg", *options, *arguments],
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def authsvc(self, *arguments: str) -> str:
        """Run the installed program. Its first line names /opt/authsvc, so its Python is named here."""
        opt = self.root / "opt/authsvc/bin"
        environment = {"PATH": os.environ["PATH"], "AUTHSVC_DATA_DIR": str(self.data), "AUTHSVC_BCRYPT_COST": "4"}
        command: list[str | Path] = [opt / "python3", "-I", opt / "authsvc", *arguments]
        done: subprocess.CompletedProcess[str] = subprocess.run(
            command, env=environment, cwd="/", capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def data(self) -> Path:
        return self.root / "var/lib/authsvc"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, built in a copy of what it is built from."""
    source = tmp_path_factory.mktemp("debian") / "source"
    source.mkdir()
    for path in (
        *ROOT.glob("*.md"),
        *ROOT.glob("*.lock"),
        *map(ROOT.joinpath, ("setup.cfg", "pyproject.toml", "LICENSE")),
    ):
        shutil.copy(path, source)
    for name in ("authsvc", "registry", "docs", "deploy"):
        ignored = shutil.ignore_patterns("__pycache__", "secrets", "*.so")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    subprocess.run([source / "deploy/debian/build.sh"], check=True, stdout=subprocess.DEVNULL)
    (built,) = (source / "build").glob("authsvc_*.deb")
    return built


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "root")


def test_package_is_installed_used_upgraded_and_purged_without_losing_data(machine: Machine, package: Path) -> None:
    assert "authsvc is installed and not started" in machine.dpkg("--install", package)
    owner = (machine.root / "etc/passwd").read_text().partition("authsvc:x:")[2].partition(":")[0]
    assert (machine.data.stat().st_uid, stat.S_IMODE(machine.data.stat().st_mode)) == (int(owner), 0o700)
    settings = machine.root / "etc/authsvc/authsvc.env"
    assert stat.S_IMODE(settings.stat().st_mode) == 0o640

    assert machine.authsvc("--version") == f"authsvc, version {__version__}\n"
    assert "password" in machine.authsvc("init")
    assert "listener 8883" in machine.authsvc("broker-config")

    settings.write_text("AUTHSVC_LOG_LEVEL=debug\n")
    assert "not started" not in machine.dpkg("--install", package), "this is an upgrade"
    assert settings.read_text() == "AUTHSVC_LOG_LEVEL=debug\n"
    assert "admin" in machine.authsvc("users", "list")

    machine.dpkg("--remove", "authsvc")
    assert not (machine.root / "opt/authsvc").exists()
    assert settings.exists()
    assert f"the data in {machine.data} is kept" in machine.dpkg("--purge", "authsvc")
    assert (machine.data / "authsvc.db").exists()
    assert not settings.exists()


def test_purge_deletes_the_data_only_when_told(machine: Machine, package: Path) -> None:
    machine.dpkg("--install", package)
    machine.authsvc("init")
    machine.dpkg("--purge", "authsvc", AUTHSVC_PURGE_DATA="yes")
    assert not machine.data.exists()


def test_package_names_no_directory_of_its_build(package: Path, tmp_path: Path) -> None:
    subprocess.run(["dpkg-deb", "--extract", package, tmp_path], check=True)
    program = (tmp_path / "opt/authsvc/bin/authsvc").read_text()
    assert program.startswith("#!/opt/authsvc/bin/python3\n")
    found = [path for path in tmp_path.rglob("*") if path.is_file() and b"/root/opt/authsvc" in path.read_bytes()]
    assert found == []

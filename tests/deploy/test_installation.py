"""An installed authsvc, as in the image, has every file that a checkout has."""

from __future__ import annotations

from configparser import ConfigParser
from typing import TYPE_CHECKING

import pytest

from tests.deploy.shipped import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def belongs_to_a_package(file: Path) -> bool:
    return file.suffix == ".py" and (file.parent / "__init__.py").exists()


@pytest.mark.parametrize("name", ["authsvc", "registry"])
def test_every_file_beside_the_modules_is_installed_with_them(name: str) -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    package = ROOT / name
    patterns = setup["options.package_data"].get(name, "").split()
    installed = {file for pattern in patterns for file in package.glob(pattern)}
    files = {file for file in package.rglob("*") if file.is_file() and "__pycache__" not in file.parts}
    assert {file for file in files if not belongs_to_a_package(file)} <= installed

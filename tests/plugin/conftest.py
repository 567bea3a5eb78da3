"""The compiled C code that all tests of this folder ask."""

from __future__ import annotations

import pytest

from tests.plugin.native import BRIDGE, COUNT_CALLS, Native, build


@pytest.fixture(scope="session")
def native() -> Native:
    """Rule sets and users as the plugin has them."""
    return Native(build("rules.so", [BRIDGE], "-shared", "-fPIC"))


@pytest.fixture(scope="session")
def counting() -> Native:
    """The same code, which also counts the functions it calls."""
    return Native(build("rules-counting.so", [BRIDGE], "-shared", "-fPIC", *COUNT_CALLS))

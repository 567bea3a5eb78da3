"""Malformed JSON never makes the parser of users read or write memory that is not its own, nor leak any."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.plugin.native import build

FUZZ = Path(__file__).parent / "fuzz_user.c"
SANITIZE = ("-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def fuzz(inputs: int, seed: int) -> None:
    """Run the fuzzer and check that its inputs reached the parser and the rules."""
    program = build("fuzz_user", [FUZZ], *SANITIZE)
    finished = subprocess.run(
        [program, str(inputs), str(seed)], capture_output=True, text=True, timeout=900, check=False
    )
    assert finished.returncode == 0, finished.stderr
    documents, users, allowed = map(int, finished.stdout.split())
    assert inputs > documents > users > inputs // 10
    assert documents - users > inputs // 10
    assert allowed > inputs // 20


def test_mutated_users_are_parsed_without_memory_errors() -> None:
    fuzz(20_000, 1)


@pytest.mark.slow
def test_very_many_mutated_users_are_parsed_without_memory_errors() -> None:
    fuzz(1_000_000, 2)

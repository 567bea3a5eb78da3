"""What the command line prints: tables at a terminal and in a pipe, help, completion; and what a start imports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest
from rich.cells import cell_len

from authsvc.cli.console import tables
from authsvc.cli.main import commands
from tests.http.console import stdout_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.http.console import Console

AUTHSVC = str(Path(sys.executable).parent / "authsvc")
# Libraries that take most of the time of a start and that neither `--version` nor `register` needs.
SLOW_LIBRARIES = {
    "requests",
    "urllib3",
    "peewee",
    "rich",
    "pydantic",
    "flask",
    "gunicorn",
    "structlog",
    "psycopg",
    "jinja2",
}

# Tables.


class _Terminal:
    """Standard output that says it is a terminal."""

    def __init__(self) -> None:
        self.lines = ""

    def write(self, text: str) -> int:
        self.lines += text
        return len(text)

    def flush(self) -> None: ...

    def isatty(self) -> bool:
        return True


def _at_a_terminal(patch: pytest.MonkeyPatch, columns: int, *rows: tuple[object, ...]) -> list[str]:
    terminal = _Terminal()
    patch.setenv("COLUMNS", str(columns))
    patch.setattr(sys, "stdout", terminal)
    tables.print_table(("NAME", "ENABLED", "PERMISSIONS"), rows)
    return click.unstyle(terminal.lines).splitlines()


@pytest.mark.parametrize("columns", [20, 40, 79, 80])
def test_table_fits_the_terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    lines = _at_a_terminal(monkeypatch, columns, ("press-7", True, "readWrite devices/%u/#" * 5), ("x" * 90, False, ""))
    assert max(map(len, lines)) <= columns
    assert lines[1].endswith("…")
    assert "…" in lines[2]


def test_only_the_widest_column_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    head, line = _at_a_terminal(monkeypatch, 40, ("press-7", True, "readWrite devices/%u/#" * 5))
    assert head.split() == ["NAME", "ENABLED", "PERMISSIONS"]
    assert line.split()[:2] == ["press-7", "yes"]
    assert len(line) == 40


def test_wide_characters_count_as_two_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    _, line = _at_a_terminal(monkeypatch, 30, ("\N{CJK UNIFIED IDEOGRAPH-6A5F}" * 30, True, "x"))
    assert cell_len(line) <= 30


def test_table_in_a_pipe_is_never_cut(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    tables.print_table(("NAME",), [("x" * 500,)])
    assert capsys.readouterr().out.splitlines()[1] == "x" * 500


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (True, "yes"),
        (False, "no"),
        (None, "-"),
        ("", "-"),
        ([], "-"),
        (0, "0"),
        (["a", "b"], "a, b"),
        ("a\x1bb", r"a\x1bb"),
    ],
)
def test_cell_has_words_for_values(value: object, shown: str) -> None:
    assert tables.cell(value) == shown


def test_tables_have_no_python_values(console: Console) -> None:
    stdout_of(console.command("registry", "keys", "create", "hall 3"))
    stdout_of(console.command("registry", "preauthorize", "press-12"))
    stdout_of(console.command("tokens", "create", "charlie"))
    for words in (("registry", "keys"), ("registry", "preauthorizations"), ("tokens",), ("users",), ("ca",)):
        table = stdout_of(console.command(*words, "show" if words == ("ca",) else "list"))
        assert len(table.splitlines()) > 1
        assert not {"True", "False", "None", "[]", "()"} & set(table.split())


# Help.


def _all_commands(group: click.Group, names: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command: Any = group.get_command(context, name)
        yield (*names, name), command
        if isinstance(command, click.Group):
            yield from _all_commands(command, (*names, name))


EVERY_COMMAND = dict(_all_commands(commands))


@pytest.mark.parametrize(
    "names", [(), *(names for names, found in EVERY_COMMAND.items() if isinstance(found, click.Group))]
)
def test_help_lists_commands_with_whole_sentences(console: Console, names: tuple[str, ...]) -> None:
    # Lines are also wrapped after a hyphen, so compare without white space.
    printed = "".join(stdout_of(console.command(*names, "--help")).split())
    assert "..." not in printed.partition("Commands:")[2]
    for child, command in EVERY_COMMAND.items():
        if child[:-1] == names:
            first_paragraph = " ".join((command.help or "").split("\n\n")[0].split())
            sentence = first_paragraph.split(". ")[0].rstrip(".")
            assert sentence.replace(" ", "") in printed


# Completion.


def _completions(shell: str, typed: str, **environment: str) -> list[str]:
    words = typed.split(" ")
    given = {"_AUTHSVC_COMPLETE": f"{shell}_complete", "COMP_WORDS": typed, "COMP_CWORD": str(len(words) - 1)}
    if shell == "fish":
        given["COMP_CWORD"] = words[-1]
    done = subprocess.run(
        [AUTHSVC], env={**os.environ, **given, **environment}, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.split("\n")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands_and_options(shell: str) -> None:
    assert any("registry" in line for line in _completions(shell, "authsvc regi"))
    assert any("--add-grant-type" in line for line in _completions(shell, "authsvc users change bob --add-g"))
    assert any("certificate" in line for line in _completions(shell, "authsvc users create bob --grant-type cert"))


@pytest.mark.parametrize(("shell", "word"), [("bash", "complete "), ("zsh", "#compdef authsvc"), ("fish", "complete ")])
def test_completion_script_is_printed_for_each_shell(shell: str, word: str) -> None:
    environment = {**os.environ, "_AUTHSVC_COMPLETE": f"{shell}_source"}
    script = subprocess.run([AUTHSVC], env=environment, capture_output=True, text=True, check=True, timeout=60).stdout
    assert word in script
    assert f"_AUTHSVC_COMPLETE={shell}_complete" in script


def test_bash_completes_with_the_script(tmp_path: Path) -> None:
    (tmp_path / "authsvc").symlink_to(AUTHSVC)
    lines = (
        'eval "$(_AUTHSVC_COMPLETE=bash_source authsvc)"; COMP_WORDS=(authsvc sess); COMP_CWORD=1;'
        '_authsvc_completion authsvc sess authsvc; echo "${COMPREPLY[@]}"'
    )
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", lines], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["sessions"]


# Start.


@pytest.mark.parametrize("arguments", [("--version",), ("--help",), ("register", "--help")], ids=" ".join)
def test_start_imports_no_slow_library(arguments: tuple[str, ...]) -> None:
    program = (
        "import sys\nfrom authsvc.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    sys.stderr.write(' '.join(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    assert not SLOW_LIBRARIES & {name.partition(".")[0] for name in done.stderr.split()}

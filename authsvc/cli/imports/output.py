"""What `authsvc import` prints: a progress bar in a terminal, then the plan and notes as text or JSON."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from authsvc.cli import terminal
from authsvc.cli.console.plans import plan_as_json, print_plan
from authsvc.cli.console.tables import printable
from authsvc.importing.notes import NoteKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from authsvc.importing.moving_in import ImportResult
    from authsvc.importing.notes import Note

MAX_LINES = 50
"""The number of changes, and of notes of one kind, that are printed; --json prints all."""
_TITLES = {
    NoteKind.LEFT_OUT: "left out",
    NoteKind.DIFFERS: "decided differently by the other system",
    NoteKind.ATTENTION: "please note",
}


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Show a bar on standard error while the block runs, if that is a terminal; yield what names the current step."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def step(description: str) -> None:
            bar.update(task, description=description)

        yield step


def print_result(result: ImportResult, *, done: bool, as_json: bool) -> None:
    """Print the plan and the notes as JSON, or the first of each as text."""
    if as_json:
        notes = [note.fields() for note in result.notes]
        terminal.print_json(plan_as_json(result.plan, done=done) | {"notes": notes})
        return
    print_plan(result.plan, done=done, most=MAX_LINES)
    for kind, title in _TITLES.items():
        lines = [_spell_note(note) for note in result.notes if note.kind is kind]
        if lines:
            click.secho(f"{title}: {len(lines):,}", bold=True)
        for line in lines[:MAX_LINES]:
            click.echo(f"    {printable(line)}")
        if len(lines) > MAX_LINES:
            click.echo(f"    ... and {len(lines) - MAX_LINES:,} more; --json prints all")


def _spell_note(note: Note) -> str:
    place = f"{note.place}: " if note.place else ""
    if note.kind is not NoteKind.DIFFERS or not note.users:
        return f"{place}{note.message}"
    others = len(note.users) - 3
    shown = ", ".join(note.users[:3]) + (f" and {others:,} more" if others > 0 else "")
    return f"{place}{note.message} ({shown})"

"""What `authsvc import` prints: a progress bar in a terminal, then the report as text or JSON."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from authsvc.cli import terminal
from authsvc.cli.console.tables import printable
from authsvc.importing.notes import NoteKind
from authsvc.importing.report import change_fields, note_fields
from authsvc.policy_file.plan import Action, Kind
from authsvc.record_json import json_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from authsvc.importing.notes import Note
    from authsvc.importing.report import Counts, ImportReport
    from authsvc.policy_file.plan import LeftAlone, PlannedChange

MAX_LINES = 30
"""The number of lines of one kind that are printed; --json prints all."""
_MARKS = {Action.CREATE: "+", Action.CHANGE: "~"}
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


def print_report(report: ImportReport, *, as_json: bool) -> None:
    """Print the whole report as JSON, or its first lines of each kind as text."""
    if as_json:
        terminal.print_json(
            {
                "applied": report.applied,
                "roles": json_fields(report.roles),
                "users": json_fields(report.users),
                "changes": list(map(change_fields, report.changes)),
                "leftAlone": [each._asdict() for each in report.left_alone],
                "notes": list(map(note_fields, report.notes)),
            }
        )
        return
    for kind, counts in ((Kind.ROLE, report.roles), (Kind.USER, report.users)):
        _print_section(
            _summary(kind, counts, report.applied),
            (
                *(_spell_change(change) for change in report.changes if change.kind is kind),
                *(_spell_left_alone(each) for each in report.left_alone if each.kind is kind),
            ),
        )
    for note_kind, title in _TITLES.items():
        lines = [_spell_note(note) for note in report.notes if note.kind is note_kind]
        if lines:
            _print_section(f"{title}: {len(lines):,}", lines)
    if not report.applied:
        click.echo("dry run: nothing was changed")


def _summary(kind: Kind, counts: Counts, applied: bool) -> str:
    to = "" if applied else "to be "
    return (
        f"{kind}s: {counts.created:,} {to}created, {counts.changed:,} {to}changed, {counts.left_alone:,} left alone,"
        f" {counts.unchanged:,} already as imported; with {counts.permissions:,} permissions"
    )


def _print_section(title: str, lines: Iterable[str]) -> None:
    click.echo(title)
    listed = list(lines)
    for line in listed[:MAX_LINES]:
        click.echo(f"  {printable(line)}")
    if len(listed) > MAX_LINES:
        click.echo(f"  ... and {len(listed) - MAX_LINES:,} more, which --json prints")


def _spell_change(change: PlannedChange) -> str:
    fields = (f"{name} {_spell(after)}" for name, _, after in change.differences())
    return f"{_MARKS[change.action]} {change.name}  {'; '.join(fields)}".rstrip()


def _spell(value: object) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def _spell_left_alone(each: LeftAlone) -> str:
    return f"= {each.name}  {each.reason}"


def _spell_note(note: Note) -> str:
    place = f"{note.place}: " if note.place else ""
    if note.kind is not NoteKind.DIFFERS or not note.users:
        return f"{place}{note.message}"
    others = len(note.users) - 3
    shown = ", ".join(note.users[:3]) + (f" and {others:,} more" if others > 0 else "")
    return f"{place}{note.message} ({shown})"

"""Plans of policy files and imports: as a diff, and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from authsvc.cli.console.tables import printable
from authsvc.policy_file.plan import Action

if TYPE_CHECKING:
    from collections.abc import Iterator

    from authsvc.policy_file.plan import Plan, PlannedChange

_SIGNS = {Action.CREATE: ("+", "green"), Action.CHANGE: ("~", "yellow"), Action.REMOVE: ("-", "red")}


def print_plan(plan: Plan, *, done: bool, most: int | None = None) -> None:
    """Print a plan as a diff, then the counts; `done` says that it was written.

    `+` is created, `~` changed, `-` removed, and `!` left alone for the reason behind it. Of each at most `most` are
    printed.
    """
    for change in plan.changes[:most]:
        sign, colour = _SIGNS[change.action]
        click.secho(f"{sign} {change.kind} {printable(change.name)}", fg=colour)
        for line in _lines(change):
            click.echo(f"    {printable(line)}")
    for kind, name, reason in plan.left_alone[:most]:
        click.echo(f"! {kind} {printable(name)}: {reason}")
    if most is not None and max(len(plan.changes), len(plan.left_alone)) > most:
        click.echo(f"... only the first {most} are shown; --json prints all")
    counts = plan.counts()
    shown = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items() if count)
    click.echo(f"{shown or 'nothing'}{'' if done or not plan.changes else ' (dry run: nothing was written)'}")


def plan_as_json(plan: Plan, *, done: bool) -> dict[str, Any]:
    """Return a plan as `POST /api/apply` answers it, with all changes."""
    changes = [
        {"action": change.action, "kind": change.kind, "name": change.name}
        | {"differences": [each._asdict() for each in change.differences()]}
        for change in plan.changes
    ]
    left_alone = [each._asdict() for each in plan.left_alone]
    counts = plan.counts()
    counts["leftAlone"] = counts.pop("left_alone")
    return {"dryRun": not done, "counts": counts, "changes": changes, "leftAlone": left_alone}


def _lines(change: PlannedChange) -> Iterator[str]:
    for field, before, after in change.differences():
        if isinstance(after, list):
            yield from (f"{field}: - {value}" for value in before if value not in after)
            yield from (f"{field}: + {value}" for value in after if value not in before)
        elif change.before is None or before is None:
            yield f"{field}: {_text(after)}"
        else:
            yield f"{field}: {_text(before)} -> {_text(after)}"


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

"""A group of commands whose help shows whole sentences and whose errors suggest near names."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterable

_LONGEST_SENTENCE = 1000


class Group(click.Group):
    """Shows the first sentence of each command in full; click would cut it at the width of the terminal."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands with the first sentence of their help."""
        with formatter.section("Commands"):
            formatter.write_dl(self.first_sentences(ctx))

    def first_sentences(self, ctx: click.Context) -> list[tuple[str, str]]:
        """Return the name and the first sentence of each command."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        return [(name, each.get_short_help_str(_LONGEST_SENTENCE)) for name, each in found if each and not each.hidden]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the first argument names; a usage error suggests near names."""
        name = args[0]
        if not (name in self.list_commands(ctx) or ctx.resilient_parsing or name.startswith("-")):
            ctx.fail(f"No such command {name!r}.{suggestion(name, self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)


def suggestion(wrong: str, known: Iterable[str]) -> str:
    """Return a question that names up to 3 known names which are near; an empty text if there is none."""
    near = get_close_matches(wrong, known, n=3)
    return f" Did you mean {' or '.join(near)}?" if near else ""

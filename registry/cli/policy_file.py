"""`authsvc export` and `authsvc apply`: policy as code."""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from authsvc.accounts import client_id_warnings
from authsvc.cli import terminal
from authsvc.cli.console.plans import plan_as_json, print_plan
from authsvc.cli.console.tables import printable
from authsvc.errors import Conflict, InvalidInput, invalid
from authsvc.policy_file import text
from authsvc.policy_file.document import SCHEMA_PATH
from authsvc.policy_file.plan import Action, Kind, PlanOptions
from authsvc.record_json import json_value
from registry import policy_file

if TYPE_CHECKING:
    from authsvc.policy_file.plan import Plan

DIFFERENCES = 3
"""The exit status of a dry run that found differences; 1 and 2 are errors."""


@click.command("export")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), required=False)
@click.option(
    "--with-hashes",
    is_flag=True,
    help="Include password hashes and the digests of one-time secrets; a new FILE is then readable by you alone.",
)
def export(file: Path | None, *, with_hashes: bool) -> None:
    """Write users, roles and preauthorizations as YAML to FILE, or to standard output.

    `authsvc apply` reads the file and changes nothing. A FILE that exists is replaced when the export is complete.
    """
    with terminal.opened() as settings:
        document = policy_file.read_document()
        schema_url = f"http://{settings.bind}{SCHEMA_PATH}"
    parts = text.write(document, schema_url, with_hashes=with_hashes)
    if file is None:
        for part in parts:
            click.echo(part, nl=False)
        return
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    mode = 0o600 if with_hashes else 0o644
    with open(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode), "w", encoding="utf-8") as target:  # noqa: PTH123 - with a mode
        target.writelines(parts)
    unfinished.replace(file)
    click.echo(f"{len(document.users)} users and {len(document.roles)} roles written to {file}", err=True)


@click.command("apply")
@click.argument("file", type=click.File("rb"))
@click.option("--dry-run", is_flag=True, help=f"Only show the changes; exit status {DIFFERENCES} if there are any.")
@click.option("--prune", is_flag=True, help="Also remove what the file does not name, of the lists that it has.")
@click.option("--yes", is_flag=True, help="Do not ask before something is removed.")
@terminal.as_json
def apply(file: BinaryIO, *, dry_run: bool, prune: bool, yes: bool, as_json: bool) -> None:
    """Make the database what FILE says, in one transaction, and print the changes.

    FILE may be `-` for standard input.
    """
    content = file.read(text.MAX_BYTES + 1)
    actor = replace(terminal.operator(), policy_file=f"sha256:{hashlib.sha256(content).hexdigest()}")
    options = PlanOptions(prune=prune)
    with terminal.opened():
        try:
            if len(content) > text.MAX_BYTES:
                raise invalid("file", f"is larger than {text.MAX_BYTES // 1024**2} MiB")
            document = text.parse(content.decode("utf-8-sig"))
            plan = policy_file.make_plan(actor, document, options)
            if not dry_run:
                confirmed = _removed(plan) if yes else _confirm(plan)

                def permit(plan: Plan) -> None:
                    if not _removed(plan) <= confirmed:
                        raise Conflict(
                            "the policy has changed since the question; apply the file again", "policy-changed"
                        )

                plan = policy_file.apply(actor, document, options, None if yes else permit)
        except UnicodeDecodeError:
            raise invalid("file", "is not UTF-8 text") from None
        except InvalidInput as error:
            for field, message in error.errors:
                click.echo(f"authsvc: {file.name}: {field}: {message}", err=True)
            sys.exit(1)
    warnings = client_id_warnings.of_new_names(each.name for each in plan.of(Kind.USER, Action.CREATE))
    if as_json:
        terminal.print_json(plan_as_json(plan, done=not dry_run) | {"warnings": json_value(warnings)})
    else:
        print_plan(plan, done=not dry_run)
        for warning in warnings:
            click.echo(f"warning: {printable(warning.message)}")
    sys.exit(DIFFERENCES if dry_run and plan.changes else 0)


COMMANDS = (export, apply)


def _removed(plan: Plan) -> set[tuple[str, str]]:
    return {(change.kind, change.name) for change in plan.changes if change.action is Action.REMOVE}


def _confirm(plan: Plan) -> set[tuple[str, str]]:
    """Ask before anything is removed and return what; an error if nobody can answer or the answer is no."""
    removed = _removed(plan)
    if removed:
        if not sys.stdin.isatty():
            raise Conflict(f"this would remove {len(removed)}; to do so without a question, add --yes", "unconfirmed")
        print_plan(plan, done=False)
        if not click.confirm(f"Remove {len(removed)}?"):
            raise Conflict("nothing was changed", "unconfirmed")
    return removed

"""What an import did or would do, in numbers and entries: the same for the command line, REST and the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from authsvc.policy_file.plan import Action, Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from authsvc.importing.moving_in import ImportResult
    from authsvc.importing.notes import Note
    from authsvc.policy_file.plan import LeftAlone, PlannedChange

MAX_SHOWN_USERS = 20
"""The number of usernames that a note shows."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How many roles or users are created, changed, left alone though they differ, and already as imported.

    `permissions` are those of the created and changed ones.
    """

    created: int
    changed: int
    left_alone: int
    unchanged: int
    permissions: int


@dataclass(frozen=True, slots=True)
class ImportReport:
    """An import; `applied` is false for a dry run."""

    applied: bool
    roles: Counts
    users: Counts
    changes: Sequence[PlannedChange]
    left_alone: Sequence[LeftAlone]
    notes: Sequence[Note]


def report_on(result: ImportResult, *, applied: bool) -> ImportReport:
    """Return the report on an import or on its dry run."""
    plan, document = result.plan, result.document

    def counts(kind: Kind, wanted: int) -> Counts:
        created, changed = plan.of(kind, Action.CREATE), plan.of(kind, Action.CHANGE)
        touched = {change.name for change in (*created, *changed)}
        left_alone = sum(each.kind is kind and each.name not in touched for each in plan.left_alone)
        permissions = sum(len(change.after.permissions) for change in (*created, *changed) if change.after)
        unchanged = wanted - len(touched) - left_alone
        return Counts(len(created), len(changed), left_alone, unchanged, permissions)

    return ImportReport(
        applied,
        counts(Kind.ROLE, len(document.roles)),
        counts(Kind.USER, len(document.users)),
        plan.changes,
        plan.left_alone,
        result.notes,
    )


def change_fields(change: PlannedChange) -> dict[str, Any]:
    """Return the JSON of a created or changed role or user; no field is a secret."""
    differences = [{"field": name, "before": before, "after": after} for name, before, after in change.differences()]
    return {"kind": change.kind.value, "name": change.name, "action": change.action.value, "differences": differences}


def note_fields(note: Note) -> dict[str, Any]:
    """Return the JSON of a note, with the first usernames and the number of all."""
    return {
        "kind": note.kind.value,
        "place": note.place,
        "message": note.message,
        "question": note.question and note.question.value,
        "topicFilter": note.topic_filter,
        "users": list(note.users[:MAX_SHOWN_USERS]),
        "userCount": len(note.users),
    }

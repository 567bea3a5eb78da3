"""Puts what was imported into force: the plan of a policy document, with the notes of the import.

An import never touches rights over this service: it leaves users who have such rights alone, and refuses to give its
users a role that has them. It changes only the fields that the other system's files say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from authsvc.accounts import client_id_warnings, roles
from authsvc.credentials.usernames import special_characters
from authsvc.errors import Conflict
from authsvc.importing.notes import Note, attention
from authsvc.policy_file import stored
from authsvc.policy_file.plan import Action, Kind, PlanOptions, make_plan
from authsvc.policy_file.writing import apply
from authsvc.storage import policy_reader
from authsvc.storage.database import session

if TYPE_CHECKING:
    from authsvc.importing.imported import Imported
    from authsvc.policy.actors import Actor
    from authsvc.policy_file.document import PolicyDocument
    from authsvc.policy_file.plan import Permit, Plan


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What an import changes, or would change, and its notes."""

    plan: Plan
    notes: list[Note]


def move_in(
    actor: Actor, imported: Imported, *, update: bool, dry_run: bool, permit: Permit | None = None
) -> ImportResult:
    """Make all changes in one transaction, or with `dry_run` none, and return them.

    Without `update`, users and roles that exist are left alone. `Conflict` if a role that exists has rights over this
    service, or a user gets such rights at the same moment; `Forbidden` if the actor lacks a right that a changed user
    or role has, or if `permit` raises it.
    """
    document, notes = imported.document, list(imported.notes)
    special = [user.username for user in document.users if special_characters(user.username)]
    notes += (attention("", each.message, *special) for each in client_id_warnings.of_new_names(special))
    if update:
        document = _changeable(document, notes)
    names = [role.name for role in document.roles]

    def check(plan: Plan) -> None:
        powerful = roles.with_http_rights(names)
        if powerful:
            raise Conflict(
                f"the role {min(powerful)} exists and has rights over this service, which an import must not give; "
                "rename that role, here or in the files",
                "role-with-rights",
            )
        changed = {change.name for change in plan.of(Kind.USER, Action.CHANGE)}
        if changed and changed & policy_reader.users_with_http_rights():
            raise Conflict(
                "a user of the import has just been given rights over this service; import again", "policy-changed"
            )
        if permit:
            permit(plan)

    work = make_plan if dry_run else apply
    plan = work(actor, document, PlanOptions(update=update, keep_unset=True), check)
    notes += (
        attention("", f"the role {each.name} exists and differs; it is left alone, and imported users get it as it is")
        for each in plan.left_alone
        if each.kind is Kind.ROLE
    )
    return ImportResult(plan, notes)


def _changeable(document: PolicyDocument, notes: list[Note]) -> PolicyDocument:
    """Return the document without the users that an import must not change; a note for each of them."""
    with session():
        administrators = policy_reader.users_with_http_rights()
        elsewhere = stored.kept_elsewhere()
    kept = []
    for user in document.users:
        if user.username in administrators:
            reason = "has rights over this service"
        elif user.username in elsewhere:
            reason = "signs in at its provider or directory"
        else:
            kept.append(user)
            continue
        notes.append(attention("", f"{user.username} exists and {reason}, so it is left alone", user.username))
    return document.model_copy(update={"users": tuple(kept)})

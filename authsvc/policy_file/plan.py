"""The plan: what a policy document changes in the database, checked and not yet written.

    plan = make_plan(actor, document, PlanOptions(prune=True))
    for change in plan.changes: print(change.action, change.kind, change.name, change.differences())

A plan is made in a read transaction, so a dry run blocks no other change. `writing.apply` writes the same plan.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from authsvc.accounts import last_admin, roles
from authsvc.credentials.password_hashes import password_version
from authsvc.errors import Conflict, FieldError, InvalidInput
from authsvc.policy.permissions import EVERY_RIGHT
from authsvc.policy.snapshot import RolePolicy, UserPolicy
from authsvc.policy_file import stored
from authsvc.policy_file.document import PolicyDocument, PolicyPreauthorization, PolicyRole, PolicyUser, in_order
from authsvc.storage import policy_reader
from authsvc.storage.changes import current_version
from authsvc.storage.database import read_transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from authsvc.policy.actors import Actor
    from authsvc.policy.permissions import Permission

    Permit = Callable[["Plan"], None]

Entry = PolicyRole | PolicyUser | PolicyPreauthorization
_NOT_COMPARED = {"username", "name", "password_hash", "secret_digest"}
_MAX_ERRORS = 100


class Kind(StrEnum):
    """What an entry of the document is."""

    ROLE = "role"
    USER = "user"
    PREAUTHORIZATION = "preauthorization"


class Action(StrEnum):
    CREATE = "create"
    CHANGE = "change"
    REMOVE = "remove"


class Difference(NamedTuple):
    """A changed field with its values as in the file; for a new entry, the default is the value before."""

    field: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class PlannedChange:
    """One entry that is created (`before` is None), changed, or removed (`after` is None).

    If it is damaged, `before` is only what could be read of it.
    """

    kind: Kind
    before: Entry | None
    after: Entry | None
    damaged: bool = False

    @property
    def action(self) -> Action:
        if self.before is None:
            return Action.CREATE
        return Action.CHANGE if self.after else Action.REMOVE

    @property
    def name(self) -> str:
        entry = self.after or self.before
        return entry.name if entry else ""

    @property
    def user(self) -> tuple[PolicyUser | None, PolicyUser | None]:
        """The user before and after; (None, None) for another kind."""
        before, after = self.before, self.after
        return (
            before if isinstance(before, PolicyUser) else None,
            after if isinstance(after, PolicyUser) else None,
        )

    def differences(self) -> list[Difference]:
        """Return the fields that differ, in the order of the file; for a removed entry none."""
        if self.after is None:
            return []
        empty = self.after.__class__.model_construct(username="", name="")
        before, after = (
            (entry or empty).model_dump(mode="json", by_alias=True, exclude=_NOT_COMPARED)
            for entry in (self.before, self.after)
        )
        found = [Difference(name, before[name], after[name]) for name in after if before[name] != after[name]]
        if self.sets_password:
            found.append(Difference("password", None, "set" if self.before is None else "changed"))
        return found

    @property
    def sets_password(self) -> bool:
        before, after = self.user
        if after is None or after.password_hash is None:
            return False
        return before is None or before.password_hash != after.password_hash


class LeftAlone(NamedTuple):
    """An entry of the document that is not, or only partly, put into force, and why."""

    kind: Kind
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """`prune` removes what the document does not name; without `update`, entries that exist are left alone.

    `keep_unset` is for documents that say only a part of an entry, as imports do: the fields that an entry does not
    name keep the stored value instead of getting the default, and a user keeps its roles besides those of the entry.
    """

    prune: bool = False
    update: bool = True
    keep_unset: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """The changes, in the order in which they are made, for one policy version of the database.

    `unchanged` counts the entries that are in the database as the document has them.
    """

    version: int
    changes: tuple[PlannedChange, ...] = ()
    left_alone: tuple[LeftAlone, ...] = ()
    unchanged: int = 0

    def counts(self) -> dict[str, int]:
        """Return the number of entries that are created, changed, removed, unchanged and left alone."""
        found = Counter(change.action for change in self.changes)
        return {
            "created": found[Action.CREATE],
            "changed": found[Action.CHANGE],
            "removed": found[Action.REMOVE],
            "unchanged": self.unchanged,
            "left_alone": len(self.left_alone),
        }

    def of(self, kind: Kind, action: Action) -> list[PlannedChange]:
        return [change for change in self.changes if change.kind is kind and change.action is action]


def make_plan(actor: Actor, wanted: PolicyDocument, options: PlanOptions, permit: Permit | None = None) -> Plan:
    """Return what the users and roles of a document change, checked as far as it can be without writing.

    `InvalidInput` for a role that does not exist or is built in; `Forbidden` if the actor lacks a right that it would
    give, take or change; `Conflict` if no administrator would be left or a removed role is in use. `permit` raises
    `Forbidden` for a change that the caller may not make.
    """
    with read_transaction():
        version = current_version()
        pruned_users = options.prune and "users" in wanted.model_fields_set
        current_roles = stored.read_roles()
        current_users = stored.read_users(None if pruned_users else [user.username for user in wanted.users])
        _check_roles(wanted, options, current_roles)
        if options.update:
            _check_kept_elsewhere(wanted, current_users)
        admitted = {each.username for each in wanted.preauthorizations}
        plan = merge(
            version,
            compare(Kind.ROLE, current_roles, wanted.roles, options, prune="roles" in wanted.model_fields_set),
            compare(Kind.USER, current_users, wanted.users, options, prune=pruned_users, kept=admitted),
        )
        check(actor, plan, permit)
        return plan


def check(actor: Actor, plan: Plan, permit: Permit | None = None) -> None:
    """Raise the errors of `make_plan` for rights, removed roles and the last administrator."""
    if permit:
        permit(plan)
    _check_rights(actor, plan)
    _check_removed_roles(plan)
    _check_administrators(plan)


def merge(version: int, *parts: Plan) -> Plan:
    """Return one plan of several; roles are removed last, because nobody may have them then."""
    changes = [change for part in parts for change in part.changes]
    changes.sort(key=lambda change: change.kind is Kind.ROLE and change.after is None)
    left_alone = tuple(each for part in parts for each in part.left_alone)
    return Plan(version, tuple(changes), left_alone, sum(part.unchanged for part in parts))


def compare(
    kind: Kind,
    current: stored.Entries[Any],
    wanted: Iterable[Entry],
    options: PlanOptions,
    *,
    prune: bool,
    kept: Iterable[str] = (),
) -> Plan:
    """Return what entries of one kind change.

    With `prune`, all current ones are removed that are neither wanted nor kept here or elsewhere.
    """
    changes: list[PlannedChange] = []
    left_alone: list[LeftAlone] = []
    names, unchanged = set(kept), 0
    for entry in wanted:
        names.add(entry.name)
        before = current.by_name.get(entry.name)
        if options.keep_unset and entry.name in current.damaged:
            left_alone.append(LeftAlone(kind, entry.name, "is damaged; authsvc check says how"))
            continue
        after = _with_stored_password(_with_unset(entry, before) if options.keep_unset else entry, before)
        if before is None or (options.update and (before != after or entry.name in current.damaged)):
            changes.append(PlannedChange(kind, before, after, entry.name in current.damaged))
        elif before == after:
            unchanged += 1
        else:
            left_alone.append(LeftAlone(kind, entry.name, "exists and differs"))
    if options.prune and prune:
        removed = sorted(current.by_name.keys() - names - current.elsewhere)
        changes += [PlannedChange(kind, current.by_name[name], None, name in current.damaged) for name in removed]
    return Plan(0, tuple(changes), tuple(left_alone), unchanged)


def _with_unset(entry: Entry, before: Entry | None) -> Entry:
    """Return the entry with the stored value of each field that it does not name, and a user with its roles too."""
    if before is None:
        return entry
    kept = {name: getattr(before, name) for name in type(entry).model_fields if name not in entry.model_fields_set}
    if isinstance(entry, PolicyUser) and isinstance(before, PolicyUser):
        kept["roles"] = in_order((*before.roles, *entry.roles))
    return entry.model_copy(update=kept)


def _with_stored_password(entry: Entry, before: Entry | None) -> Entry:
    """Return the entry with the stored hash if it names none, or the foreign one that the stored hash replaced."""
    if not isinstance(entry, PolicyUser) or not isinstance(before, PolicyUser) or before.password_hash is None:
        return entry
    if entry.password_hash is None or password_version(entry.password_hash) == password_version(before.password_hash):
        return entry.model_copy(update={"password_hash": before.password_hash})
    return entry


def _check_roles(wanted: PolicyDocument, options: PlanOptions, current: stored.Entries[PolicyRole]) -> None:
    """Raise `InvalidInput` for a built-in role, and for each role of a user that does not exist after the change."""
    wrong = [
        FieldError(f"roles[{position}].name", f"{role.name} is built in and cannot be changed; remove it from the file")
        for position, role in enumerate(wanted.roles)
        if role.name in roles.BUILT_IN
    ]
    known = roles.BUILT_IN | {role.name for role in wanted.roles}
    if not (options.prune and "roles" in wanted.model_fields_set):
        known |= current.by_name.keys()
    for section in ("users", "preauthorizations"):
        for position, entry in enumerate(getattr(wanted, section)):
            for role in entry.roles:
                if role not in known:
                    message = f"{entry.name}: there is no role {role}"
                    wrong.append(FieldError(f"{section}[{position}].roles", message))
    if wrong:
        raise InvalidInput(*wrong[:_MAX_ERRORS])


def _check_kept_elsewhere(wanted: PolicyDocument, current: stored.Entries[PolicyUser]) -> None:
    """Raise `InvalidInput` for each user that a provider or directory confirms: it has no password here."""
    message = "signs in at its provider or directory; remove it from the file, and give it rights on the page"
    wrong = [
        FieldError(f"users[{position}].username", f"{user.username} {message}")
        for position, user in enumerate(wanted.users)
        if user.username in current.elsewhere
    ]
    if wrong:
        raise InvalidInput(*wrong[:_MAX_ERRORS])


def _check_rights(actor: Actor, plan: Plan) -> None:
    """Raise `Forbidden` if the actor lacks a right of a user or role before or after its change."""
    if actor.rules is None:
        return
    held: set[str] = set()
    rights: set[Permission] = set()
    for change in plan.changes:
        entries: list[Entry] = [entry for entry in (change.before, change.after) if entry]
        for entry in entries:
            rights.update(entry.permissions)
            held.update(getattr(entry, "roles", ()))
        if change.damaged:
            rights.add(EVERY_RIGHT)
        if change.kind is Kind.ROLE and change.before:
            held.add(change.name)
            # A change of a role changes every user of it, through its deny rules too.
            rights.update(policy_reader.rights_of_holders(change.name))
    rights.update(policy_reader.rights_of_roles(held))
    actor.must_hold(sorted(rights))


def _check_removed_roles(plan: Plan) -> None:
    removed = [change.name for change in plan.of(Kind.ROLE, Action.REMOVE)]
    changed = {change.name: change.user[1] for change in plan.changes if change.kind is Kind.USER}
    for role in removed:
        for username in stored.holders(role):
            after = changed.get(username)
            if username not in changed or (after and role in after.roles):
                raise Conflict(f"{username} has the role {role}, which would be removed", "role-in-use")


def _check_administrators(plan: Plan) -> None:
    """Raise `Conflict` if there is an administrator now, and none after the change."""
    current = policy_reader.user_policies(last_admin.usernames(), datetime.now(UTC))
    if not any(last_admin.can_administrate(user, policy_reader.role_policies(user.roles)) for user in current.values()):
        return
    changed = {change.name: change.user[1] for change in plan.changes if change.kind is Kind.USER}
    changed_roles = {
        change.name: RolePolicy(change.after.permissions, change.after.client_ids)
        for change in plan.changes
        if isinstance(change.after, PolicyRole)
    }
    future = [user for user in current.values() if user.username not in changed]
    future += [_policy(user) for user in changed.values() if user and last_admin.ROLE in user.roles]
    for user in future:
        its_roles = {name: changed_roles[name] for name in user.roles if name in changed_roles}
        if last_admin.can_administrate(user, policy_reader.role_policies(user.roles) | its_roles):
            return
    raise last_admin.lost()


def _policy(user: PolicyUser) -> UserPolicy:
    return UserPolicy(user.username, user.enabled, user.grant_types, user.password_hash, user.permissions, user.roles)

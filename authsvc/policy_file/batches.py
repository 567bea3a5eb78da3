"""Users created or deleted together: all of them, or none and an error for each that stands in the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from authsvc.errors import Conflict, FieldError, InvalidInput
from authsvc.policy_file import stored
from authsvc.policy_file.document import PolicyDocument
from authsvc.policy_file.plan import Kind, Plan, PlannedChange, PlanOptions, check, make_plan
from authsvc.policy_file.writing import in_one_transaction, write
from authsvc.storage import policy_reader
from authsvc.storage.changes import current_version
from authsvc.storage.database import read_transaction

if TYPE_CHECKING:
    from collections.abc import Sequence

    from authsvc.policy.actors import Actor
    from authsvc.policy_file.document import PolicyUser
    from authsvc.policy_file.plan import Permit

MAX_USERS = 10_000


class UsersExist(Conflict):
    """Users cannot be created because their names exist; `errors` names each of them."""

    code = "user-exists"

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__(f"{len(errors)} of the usernames exist; no user was created")
        self.errors = errors


def create(actor: Actor, users: Sequence[PolicyUser], permit: Permit) -> None:
    """Create users; the errors are those of `make_plan`, and `UsersExist`. `permit` is as there."""
    names: set[str] = set()
    for position, user in enumerate(users):
        if user.username in names:
            raise InvalidInput(FieldError(f"users[{position}].username", "is the name of an earlier user of the list"))
        names.add(user.username)

    def make() -> Plan:
        plan = make_plan(actor, PolicyDocument(users=tuple(users)), PlanOptions(update=False), permit)
        new = {change.name for change in plan.changes}
        if len(new) < len(users):
            message = "a user of this name exists"
            raise UsersExist(
                [FieldError(f"users[{at}].username", message) for at, user in enumerate(users) if user.name not in new]
            )
        return plan

    in_one_transaction(make, lambda plan, announce: write(actor, plan, announce))


def delete(actor: Actor, usernames: Sequence[str], permit: Permit) -> None:
    """Delete users as `accounts.users.delete` does; `InvalidInput` names each that does not exist."""

    def make() -> Plan:
        with read_transaction():
            found = stored.read_users(dict.fromkeys(usernames))
            unknown = [
                FieldError(f"usernames[{position}]", "no such user")
                for position, name in enumerate(usernames)
                if name not in found.by_name
            ]
            if unknown:
                raise InvalidInput(*unknown)
            changes = [
                PlannedChange(Kind.USER, user, None, name in found.damaged) for name, user in found.by_name.items()
            ]
            for name in sorted(found.elsewhere):  # the plan knows no roles that groups give
                actor.must_hold(policy_reader.rights_of_user(name))
            plan = Plan(current_version(), tuple(changes))
            check(actor, plan, permit)
            return plan

    in_one_transaction(make, lambda plan, announce: write(actor, plan, announce))

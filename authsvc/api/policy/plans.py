"""What the answers to policy files and imports share: the plan, and the permission that each of its changes needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from authsvc.api.schemas import Query, View, render
from authsvc.errors import Forbidden
from authsvc.policy.topics import path_level
from authsvc.policy_file.plan import Action, Kind
from authsvc.record_json import json_value
from authsvc.web.request_context import caller, services

if TYPE_CHECKING:
    from authsvc.policy_file.plan import Plan

MAX_SHOWN = 1000
_PATHS = {
    Kind.ROLE: "/api/roles",
    Kind.USER: "/api/users",
    Kind.PREAUTHORIZATION: "/api/client-registry/preauthorizations",
}
_METHODS = {Action.CREATE: "POST", Action.CHANGE: "PATCH", Action.REMOVE: "DELETE"}
KindName = Literal["role", "user", "preauthorization"]


class PlanQuery(Query):
    dry_run: bool = Field(default=False, description="only return what would change")


class PlanCounts(View):
    """The number of entries of each outcome."""

    created: int
    changed: int
    removed: int
    unchanged: int = Field(description="entries that are in the database as the file has them")
    left_alone: int


class DifferenceView(View):
    """A changed field, with its values in the form of the file; a password is only `set` or `changed`."""

    field: str
    before: Any
    after: Any


class PlannedChangeView(View):
    """An entry that is created, changed or removed."""

    action: Literal["create", "change", "remove"]
    kind: KindName
    name: str
    differences: list[DifferenceView]


class LeftAloneView(View):
    """An entry that is not, or only partly, put into force, and why."""

    kind: KindName
    name: str
    reason: str


class PlanView(View):
    """What was changed, or with `dryRun` would be. Both lists have at most 1,000 entries; `counts` has the totals."""

    dry_run: bool
    counts: PlanCounts
    changes: list[PlannedChangeView]
    left_alone: list[LeftAloneView]


def render_plan(plan: Plan, *, dry_run: bool) -> dict[str, Any]:
    """Return the JSON of a plan."""
    changes = [
        PlannedChangeView(
            action=change.action.value,
            kind=change.kind.value,
            name=change.name,
            differences=[
                DifferenceView(field=field, before=json_value(before), after=json_value(after))
                for field, before, after in change.differences()
            ],
        )
        for change in plan.changes[:MAX_SHOWN]
    ]
    left_alone = [
        LeftAloneView(kind=kind.value, name=name, reason=reason) for kind, name, reason in plan.left_alone[:MAX_SHOWN]
    ]
    counts = PlanCounts(**plan.counts())
    return render(PlanView(dry_run=dry_run, counts=counts, changes=changes, left_alone=left_alone))


def permit(plan: Plan) -> None:
    """Raise `Forbidden` unless the caller has the permission that each change needs in the REST API."""
    for change in plan.changes:
        path = _PATHS[change.kind]
        if change.before:
            path = f"{path}/{path_level(change.name)}"
        if not services().access.may_call(caller(), _METHODS[change.action], path):
            raise Forbidden(f"your account needs the permission `http write {path}` to do this")

"""The whole policy file: roles and users, which `authsvc.policy_file` plans and writes, and preauthorizations."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from peewee import chunked

from authsvc.credentials.passwords import PasswordPolicy
from authsvc.credentials.usernames import RegistrationNames
from authsvc.errors import Conflict, InvalidInput, invalid
from authsvc.policy.permissions import Permission
from authsvc.policy.snapshot import RolePolicy
from authsvc.policy_file import plan as plans
from authsvc.policy_file import stored, writing
from authsvc.policy_file.document import PolicyPreauthorization, PolicyRole, in_order
from authsvc.policy_file.plan import Action, Kind, LeftAlone
from authsvc.storage import policy_reader
from authsvc.storage.database import database_time, read_transaction
from authsvc.storage.models import User
from registry import preauthorizations
from registry.models import Preauthorization, Registration
from registry.preauthorizations import NewPreauthorization
from registry.states import Status

if TYPE_CHECKING:
    from authsvc.policy.actors import Actor
    from authsvc.policy_file.document import PolicyDocument
    from authsvc.policy_file.plan import Permit, Plan, PlanOptions
    from authsvc.storage.changes import Announce

_BATCH = 500


def read_document() -> PolicyDocument:
    """Return the policy of the database with its secrets; `Conflict` if a user, role or preauthorization is damaged."""
    with read_transaction():
        current = _read()
        if current.damaged:
            name = min(current.damaged)
            raise Conflict(f"the preauthorization of {name} is damaged; delete it", "damaged-policy")
        return stored.read_document(tuple(current.by_name.values()))


def make_plan(actor: Actor, wanted: PolicyDocument, options: PlanOptions, permit: Permit | None = None) -> Plan:
    """Return what a document changes; the errors are those of `authsvc.policy_file.plan.make_plan`.

    A preauthorization whose username is a user's, or registered, has been used or decided on: it is left alone.
    """
    with read_transaction():
        current = _read()
        done = _decided(wanted)
        given = [_with_stored_digest(one, current) for one in wanted.preauthorizations if one.username not in done]
        pruned = "preauthorizations" in wanted.model_fields_set
        part = plans.compare(Kind.PREAUTHORIZATION, current, given, options, prune=pruned, kept=done)
        plan = plans.make_plan(actor, wanted, options)
        notes = tuple(LeftAlone(Kind.PREAUTHORIZATION, name, reason) for name, reason in sorted(done.items()))
        plan = plans.merge(plan.version, plan, part, plans.Plan(0, left_alone=notes))
        if permit:
            permit(plan)
        _check_rights(actor, plan)
        return plan


def apply(actor: Actor, wanted: PolicyDocument, options: PlanOptions, permit: Permit | None = None) -> Plan:
    """Put a document into force in one transaction and return what was changed; the errors are those of the plan.

    `actor.policy_file` is noted in each audit event.
    """

    def write(plan: Plan, announce: Announce) -> None:
        writing.write(actor, plan, announce)
        changes = [change for change in plan.changes if change.kind is Kind.PREAUTHORIZATION]
        for change in changes:
            if change.before:
                row = Preauthorization.get_or_none(Preauthorization.username == change.name)
                if row is None:
                    message = f"the preauthorization of {change.name} has just been used or deleted; apply again"
                    raise Conflict(message, "policy-changed")
                preauthorizations.delete(actor, row.id)
        created = [change.after for change in changes if isinstance(change.after, PolicyPreauthorization)]
        digests = {one.username: one.secret_digest for one in created if one.secret_digest}
        preauthorizations.create(actor, map(_new, created), PasswordPolicy(), digests, RegistrationNames.ANY)

    return writing.in_one_transaction(lambda: make_plan(actor, wanted, options, permit), write)


def _read() -> stored.Entries[PolicyPreauthorization]:
    """Return the preauthorizations that have not expired."""
    found: stored.Entries[PolicyPreauthorization] = stored.Entries()
    valid = Preauthorization.expires_at.is_null() | (Preauthorization.expires_at > database_time())
    for row in Preauthorization.select().where(valid).order_by(Preauthorization.username):
        if row.is_damaged:
            found.damaged.add(row.username)
        found.by_name[row.username] = PolicyPreauthorization.model_construct(
            username=row.username,
            roles=in_order(row.roles),
            permissions=in_order(Permission.from_fields(**fields) for fields in row.permissions),
            csr_fingerprint=row.csr_fingerprint,
            expires_at=row.expires_at and row.expires_at.replace(microsecond=0),
            with_secret=row.secret_digest is not None,
            secret_digest=row.secret_digest,
        )
    return found


def _decided(wanted: PolicyDocument) -> dict[str, str]:
    """Return the preauthorizations of a document that cannot be made any more, by username with the reason."""
    now = datetime.now(UTC)
    reasons = {one.username: "has expired" for one in wanted.preauthorizations if (one.expires_at or now) < now}
    unbound = {one.username for one in wanted.preauthorizations if not (one.with_secret or one.csr_fingerprint)}
    for batch in chunked([one.username for one in wanted.preauthorizations], _BATCH):
        for row in Registration.select().where(Registration.username.in_(batch)):
            if row.status == Status.PENDING and row.username in unbound:
                reasons[row.username] = "has a pending registration; grant or delete it"
            elif row.status not in (Status.PENDING, Status.EXPIRED):
                reasons[row.username] = f"has a registration that was {row.status}"
        for user in User.select(User.username).where(User.username.in_(batch)):
            reasons[user.username] = "is a user by now"
    return reasons


def _with_stored_digest(
    one: PolicyPreauthorization, current: stored.Entries[PolicyPreauthorization]
) -> PolicyPreauthorization:
    if one.csr_fingerprint and (one.with_secret or one.secret_digest):
        raise invalid("preauthorizations", f"{one.username}: csrFingerprint cannot be combined with a secret")
    if one.secret_digest:
        return one.model_copy(update={"with_secret": True})
    before = current.by_name.get(one.username)
    if not one.with_secret:
        return one
    if before is None or before.secret_digest is None:
        raise invalid(
            "preauthorizations",
            f"{one.username}: the file does not have the secret's digest; export it with --with-hashes, or create the "
            "preauthorization with: authsvc registry preauthorize --with-secret",
        )
    return one.model_copy(update={"secret_digest": before.secret_digest})


def _check_rights(actor: Actor, plan: Plan) -> None:
    changes = [change for change in plan.changes if change.kind is Kind.PREAUTHORIZATION]
    created = [_new(change.after) for change in changes if isinstance(change.after, PolicyPreauthorization)]
    known = dict(policy_reader.role_policies({role for one in created for role in one.roles}))
    for change in plan.changes:
        if isinstance(change.after, PolicyRole):
            known[change.name] = RolePolicy(change.after.permissions, change.after.client_ids)
    for change in plan.of(Kind.ROLE, Action.REMOVE):
        known.pop(change.name, None)
    for one in created:
        try:
            preauthorizations.check_rights(actor, [one], known)
        except InvalidInput as error:
            raise error.within(f"preauthorizations[{one.username}]") from None


def _new(one: PolicyPreauthorization) -> NewPreauthorization:
    return NewPreauthorization(
        one.username, one.roles, one.permissions, one.csr_fingerprint, one.expires_at, with_secret=one.with_secret
    )

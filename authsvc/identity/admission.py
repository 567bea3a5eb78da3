"""Lets a user in whom a provider or directory has confirmed: creates it at its first sign-in, and sets its roles."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from authsvc.accounts import browser_sessions, users
from authsvc.activity import audit
from authsvc.credentials.usernames import skeleton
from authsvc.errors import Conflict, Forbidden, Unauthenticated
from authsvc.policy.actors import SERVICE
from authsvc.storage import policy_reader
from authsvc.storage.changes import ChangeKind, policy_change
from authsvc.storage.database import session
from authsvc.storage.models import Identity, Role, User, UserRole

if TYPE_CHECKING:
    from authsvc.identity.confirmed import ConfirmedIdentity
    from authsvc.policy.actors import Actor


def admit(identity: ConfirmedIdentity, address: str | None) -> str:
    """Return the username of a confirmed identity, after its roles from groups are stored.

    An identity is found by its issuer and subject, so neither another name at the provider nor the same name at another
    provider gives anybody another user. At its first sign-in a user is created, with no grant type for the broker.

    `Forbidden` if no group of it gives a role: then it also loses the roles of earlier sign-ins, its sessions and its
    API tokens. `Conflict` if its name belongs to another user or looks like that of one; `Unauthenticated` if the user
    is disabled here.
    """
    request_id = structlog.contextvars.get_contextvars().get("request_id")
    actor = replace(SERVICE, address=address, request_id=request_id)
    if not identity.roles:
        _withdraw(actor, identity)
        raise Forbidden("none of your groups gives access to authsvc", "no-group")
    now = datetime.now(UTC)
    with policy_change() as announce:
        row = _known(identity)
        if row is None:
            row = _create(actor, identity, now)
        if not row.user.enabled:
            raise Unauthenticated("your account is disabled here", "user-disabled")
        _set_roles(actor, row.user.username, identity.roles)
        Identity.update(confirmed_at=now, confirmed_until=now + identity.lasts).where(
            Identity.user == row.user
        ).execute()
        announce(ChangeKind.USER, row.user.username)
        username: str = row.user.username
    return username


def origin_of(username: str) -> Identity | None:
    """Return the identity of a user; None if the user is kept here."""
    with session():
        found: Identity | None = Identity.select(Identity, User).join(User).where(User.username == username).first()
        return found


def _known(identity: ConfirmedIdentity) -> Identity | None:
    same = (Identity.issuer == identity.issuer) & (Identity.subject == identity.subject)
    found: Identity | None = Identity.select(Identity, User).join(User).where(same).first()
    return found


def _create(actor: Actor, identity: ConfirmedIdentity, now: datetime) -> Identity:
    name = identity.username
    if name is None:
        message = "your username cannot be used here: it needs 3 to 64 of a-z 0-9 _ . - and must not look like `admin`"
        raise Conflict(message, "unusable-username")
    if User.select().where(User.skeleton == skeleton(name)).exists():
        raise Conflict("your username, or one that looks like it, belongs to another user here", "username-taken")
    users.create_with_hash(actor, name, {"grant_types": frozenset()}, None, identity.origin)
    user = User.get(User.username == name)
    row: Identity = Identity.create(
        user=user, issuer=identity.issuer, subject=identity.subject, confirmed_at=now, confirmed_until=now
    )
    return row


def _set_roles(actor: Actor, username: str, names: tuple[str, ...]) -> None:
    """Replace the roles that the user's groups give, and keep those given here; `Conflict` if one does not exist."""
    before = users.get(username)
    if set(before.group_roles) == set(names):
        return
    chosen = list(Role.select().where(Role.name.in_(names)))
    missing = set(names) - {role.name for role in chosen}
    if missing:
        raise Conflict(f"your groups give the role {min(missing)}, which does not exist here", "role-missing")
    user = User.get(User.username == username)
    UserRole.delete().where(UserRole.user == user, UserRole.from_groups).execute()
    for role in chosen:
        UserRole.create(user=user, role=role, from_groups=True)
    user.updated_at = policy_reader.next_update(user.updated_at)
    user.save()
    earlier, later = {"groupRoles": before.group_roles}, {"groupRoles": names}
    audit.record(actor, "user.change", f"user:{username}", earlier, later)


def _withdraw(actor: Actor, identity: ConfirmedIdentity) -> None:
    with policy_change() as announce:
        row = _known(identity)
        if row is not None:
            _set_roles(actor, row.user.username, ())
            Identity.update(confirmed_until=datetime.now(UTC)).where(Identity.user == row.user).execute()
            browser_sessions.end_all(row.user.username)
            announce(ChangeKind.USER, row.user.username)

"""Actors of the tests: Alice is an administrator, Bob a device, Charlie may change users and roles but no more."""

from __future__ import annotations

from authsvc.credentials.hashing import HashingPool
from authsvc.credentials.passwords import PasswordHasher, PasswordPolicy
from authsvc.policy.actors import Actor, Via
from authsvc.policy.permissions import Context, Effect, Operation, Permission, Rule

ADMIN_PASSWORD = "the first administrator's own secret"
BOBS_PASSWORD = "bob's very own secret"
HASHER = PasswordHasher(PasswordPolicy(), 4, HashingPool(workers=2, max_waiting=1000, patience=60))


def mqtt(operation: str, resource: str, effect: str = "allow") -> Permission:
    """Return a permission for topics."""
    return Permission(Context.MQTT, Operation(operation), resource, Effect(effect))


def http(operation: str, resource: str, effect: str = "allow") -> Permission:
    """Return a permission for paths of this service."""
    return Permission(Context.HTTP, Operation(operation), resource, Effect(effect))


def own(*permissions: Permission) -> tuple[Rule, ...]:
    """Return the permissions as rules of the user's own, not of a role."""
    return tuple(Rule(permission, None) for permission in permissions)


ALICE = Actor("alice", Via.API, own(mqtt("readWrite", "#"), http("readWrite", "/#")), "192.0.2.1", "request-1")
CHARLIES_PERMISSIONS = (http("readWrite", "/api/users/#"), http("readWrite", "/api/roles/#"), http("read", "/api/me"))
CHARLIE = Actor("charlie", Via.API, own(*CHARLIES_PERMISSIONS))
OPERATOR = Actor("root", Via.COMMAND)

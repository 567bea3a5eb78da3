"""The cast: Alice administers, Bob is a device, Charlie looks after users and must not reach further."""

from __future__ import annotations

from authsvc.credentials.hashing import HashingPool
from authsvc.credentials.passwords import PasswordHasher, PasswordPolicy
from authsvc.policy.actors import Actor, Via
from authsvc.policy.permissions import Context, Effect, Operation, Permission, Rule

ADMIN_PASSWORD = "the first administrator's own secret"
BOBS_PASSWORD = "bob's very own secret"
HASHER = PasswordHasher(PasswordPolicy(), 4, HashingPool(workers=2, max_waiting=1000, patience=60))


def mqtt(operation: str, resource: str, effect: str = "allow") -> Permission:
    """Return a permission on the broker."""
    return Permission(Context.MQTT, Operation(operation), resource, Effect(effect))


def http(operation: str, resource: str, effect: str = "allow") -> Permission:
    """Return a permission over the service itself."""
    return Permission(Context.HTTP, Operation(operation), resource, Effect(effect))


def own(*permissions: Permission) -> tuple[Rule, ...]:
    """Return the permissions as rules that came through no role."""
    return tuple(Rule(permission, None) for permission in permissions)


ALICE = Actor("alice", Via.API, own(mqtt("readWrite", "#"), http("readWrite", "/#")), "192.0.2.1", "request-1")
CHARLIES_PERMISSIONS = (http("readWrite", "/api/users/#"), http("readWrite", "/api/roles/#"), http("read", "/api/me"))
CHARLIE = Actor("charlie", Via.API, own(*CHARLIES_PERMISSIONS))
OPERATOR = Actor("root", Via.COMMAND)

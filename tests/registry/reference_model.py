"""A second, simple implementation of the registry's rules, to compare the service with."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_PENDING = 2
# The number of names: evictions from a full list depend on time and are tested elsewhere.
MAX_LOCKED = 3


@dataclass(frozen=True)
class Held:
    """The credentials of a client: a password, a key by its number, or both."""

    password: str | None = None
    key: int | None = None


@dataclass
class Member:
    """A user with its roles."""

    held: Held
    roles: frozenset[str] = frozenset()


@dataclass
class Request:
    """A registration."""

    held: Held
    status: str = "pending"
    while_locked: bool = False
    starting_roles: frozenset[str] = frozenset()
    wishes: frozenset[str] = frozenset()
    attempts: int = 1
    last_seen: int = 0
    conflicts: int = 0
    held_reason: str | None = None

    @property
    def is_replaceable(self) -> bool:
        return self.status == "pending" or (self.status == "denied" and self.held_reason == "binding-not-met")


@dataclass
class ModelPreauthorization:
    """A preauthorization, bound to a key or secret if one is set."""

    roles: frozenset[str]
    key: int | None = None
    secret: str | None = None
    is_held: bool = False

    @property
    def is_bound(self) -> bool:
        return self.key is not None or self.secret is not None

    def is_met_by(self, held: Held, secret: str | None) -> bool:
        """Whether a contact has the bound key or secret."""
        return (self.key is not None and self.key == held.key and held.password is None) or (
            self.secret is not None and self.secret in (secret, held.password)
        )


@dataclass
class EnrolmentKey:
    """An enrolment key."""

    uses: int
    roles: frozenset[str]
    approval_required: bool


@dataclass
class RegistryModel:
    """The state of a registry; each method is a request and returns the HTTP status."""

    open: bool = False
    window_roles: frozenset[str] = frozenset()
    users: dict[str, Member] = field(default_factory=dict)
    requests: dict[str, Request] = field(default_factory=dict)
    preauthorizations: dict[str, ModelPreauthorization] = field(default_factory=dict)
    certificates: dict[str, int] = field(default_factory=dict)
    moments: Iterator[int] = field(default_factory=count)
    tried: set[str] = field(default_factory=set)

    def known(self, name: str) -> Request | None:
        """Return the registration of a name unless it has expired or its user was deleted."""
        request = self.requests.get(name)
        if request is None or request.status == "expired" or (request.status == "granted" and name not in self.users):
            return None
        return request

    def pending(self) -> int:
        return sum(request.status == "pending" for request in self.requests.values())

    def register(
        self, name: str, held: Held, wishes: frozenset[str], key: EnrolmentKey | None, secret: str | None = None
    ) -> int:
        self.tried.add(name)
        preauthorization, known = self.preauthorizations.get(name), self.known(name)
        is_meant = preauthorization is not None and preauthorization.is_met_by(held, secret)
        if known and not (known.is_replaceable and is_meant):
            return self._poll(name, held)
        if name in self.users:
            return 409
        if preauthorization and is_meant:
            self._admit(name, Request(held), preauthorization.roles)
            return 201
        if secret is not None and key is None:
            return 403
        return self._register_unknown(name, Request(held, wishes=wishes), key)

    def _register_unknown(self, name: str, request: Request, key: EnrolmentKey | None) -> int:
        preauthorization = self.preauthorizations.get(name)
        if key:
            request.starting_roles = key.roles
            return self._enrol(name, request, key)
        if preauthorization and not preauthorization.is_bound:
            return self._contact_unbound(name, request, preauthorization)
        if not self.open:
            return 423
        request.held_reason = "binding-not-met" if preauthorization else None
        request.starting_roles = self.window_roles
        return self._record(name, request)

    def connect(self, name: str, password: str) -> bool:
        """Return whether the device can connect."""
        member, held = self.users.get(name), Held(password)
        if member:
            return member.held.password == password
        self.tried.add(name)
        preauthorization, known = self.preauthorizations.get(name), self.known(name)
        if preauthorization and preauthorization.is_met_by(held, None) and (known is None or known.is_replaceable):
            self._admit(name, Request(held), preauthorization.roles)
        elif known:
            known.conflicts += known.status == "pending" and known.held.password not in (None, password)
            self._see_again(known)
        elif preauthorization and not preauthorization.is_bound:
            self._contact_unbound(name, Request(held), preauthorization)
        else:
            roles = self.window_roles if self.open else frozenset()
            reason = "binding-not-met" if preauthorization else None
            request = Request(held, while_locked=not self.open, starting_roles=roles, held_reason=reason)
            self._record(name, request)
        return False

    def grant(self, name: str, roles: frozenset[str], accept: bool, may_give: frozenset[str], confirmed: bool) -> int:
        request = self.requests[name]
        if request.status != "pending":
            return 409
        if request.while_locked and not self.open:
            return 423
        if name in self.users or ((request.conflicts or request.held_reason) and not confirmed):
            return 409
        given = request.starting_roles | roles | (request.wishes if accept else frozenset())
        if not given <= may_give:
            return 403
        if "admin" in given - roles and not confirmed:
            return 409
        self._admit(name, request, given)
        return 200

    def deny(self, name: str) -> int:
        request = self.requests[name]
        if request.status != "pending":
            return 409
        request.status = "denied"
        return 200

    def preauthorize(self, name: str, preauthorization: ModelPreauthorization) -> int:
        known = self.known(name)
        if name in self.users or name in self.preauthorizations:
            return 409
        if known and not (known.status == "pending" and preauthorization.is_bound):
            return 409
        preauthorization.is_held = name in self.tried and not preauthorization.is_bound
        self.preauthorizations[name] = preauthorization
        return 201

    def create_user(self, name: str, password: str) -> int:
        if name in self.users:
            return 409
        self.users[name] = Member(Held(password))
        return 201

    def expire_pending(self) -> None:
        self.open = False
        for request in self.requests.values():
            if request.status == "pending":
                request.status = "expired"

    def _poll(self, name: str, held: Held) -> int:
        request = self.requests[name]
        if request.status == "denied":
            return 403
        if request.held != held:
            request.conflicts += 1
            request.last_seen = next(self.moments)
            return 409
        if request.status == "pending" and name in self.users:
            return 409
        if request.status == "granted":
            return 201
        self._see_again(request)
        return 202

    def _see_again(self, request: Request) -> None:
        request.attempts += 1
        request.last_seen = next(self.moments)

    def _enrol(self, name: str, request: Request, key: EnrolmentKey) -> int:
        if key.uses == 0:
            return 403
        preauthorization = self.preauthorizations.get(name)
        if preauthorization and preauthorization.is_bound:
            return 409
        if preauthorization and preauthorization.is_held:
            request.held_reason = "tried-before"
        if key.approval_required or request.held_reason:
            answer = self._record(name, request)
        else:
            self._admit(name, request, request.starting_roles)
            answer = 201
        key.uses -= 1
        return answer

    def _contact_unbound(self, name: str, request: Request, preauthorization: ModelPreauthorization) -> int:
        """Apply an unbound preauthorization to the first contact of its name."""
        request.starting_roles = preauthorization.roles
        if preauthorization.is_held:
            request.held_reason = "tried-before"
            return self._record(name, request)
        self._admit(name, request, preauthorization.roles)
        return 201

    def _record(self, name: str, request: Request) -> int:
        """Record a registration; a full list evicts the oldest one with a single attempt."""
        self.requests.pop(name, None)
        alike = [
            (other.attempts > 1, other.last_seen, who)
            for who, other in self.requests.items()
            if other.status == "pending" and other.while_locked == request.while_locked
        ]
        if len(alike) >= (MAX_LOCKED if request.while_locked else MAX_PENDING):
            del self.requests[min(alike)[2]]
        request.last_seen = next(self.moments)
        self.requests[name] = request
        return 202

    def _admit(self, name: str, request: Request, roles: frozenset[str]) -> None:
        request.status = "granted"
        self.preauthorizations.pop(name, None)
        self.requests[name] = request
        self.users[name] = Member(request.held, roles)
        self.certificates[name] = self.certificates.get(name, 0) + (request.held.key is not None)

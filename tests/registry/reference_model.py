"""What ought to be: the registry's rules told a second time, as plainly as can be, to hold the service to them."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_PENDING = 2
# As many as there are names: how this list changes when it is full depends on time, and has tests of its own.
MAX_LOCKED = 3


@dataclass(frozen=True)
class Held:
    """What a client proves to hold: a password, a key by its number, or both."""

    password: str | None = None
    key: int | None = None


@dataclass
class Member:
    """A user, and what somebody has given it."""

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
    def yields_to_holder(self) -> bool:
        return self.status == "pending" or (self.status == "denied" and self.held_reason == "binding-not-met")


@dataclass
class Advance:
    """A grant given in advance, to the holder of a key or secret alone if one is named."""

    roles: frozenset[str]
    key: int | None = None
    secret: str | None = None
    is_held: bool = False

    @property
    def is_bound(self) -> bool:
        return self.key is not None or self.secret is not None

    def is_met_by(self, held: Held, secret: str | None) -> bool:
        """Whether a contact has what it is bound to."""
        return (self.key is not None and self.key == held.key and held.password is None) or (
            self.secret is not None and self.secret in (secret, held.password)
        )


@dataclass
class EnrolmentKey:
    """A key to the front door."""

    uses: int
    roles: frozenset[str]
    approval_required: bool


@dataclass
class Ledger:
    """Everything that matters of a registry; each method is an event and returns the status it is answered with."""

    open: bool = False
    window_roles: frozenset[str] = frozenset()
    users: dict[str, Member] = field(default_factory=dict)
    requests: dict[str, Request] = field(default_factory=dict)
    advances: dict[str, Advance] = field(default_factory=dict)
    certificates: dict[str, int] = field(default_factory=dict)
    moments: Iterator[int] = field(default_factory=count)
    tried: set[str] = field(default_factory=set)

    def known(self, name: str) -> Request | None:
        """Return the registration that counts: not one that ran out, or whose user is gone."""
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
        advance, known = self.advances.get(name), self.known(name)
        is_meant = advance is not None and advance.is_met_by(held, secret)
        if known and not (known.yields_to_holder and is_meant):
            return self._poll(name, held)
        if name in self.users:
            return 409
        if advance and is_meant:
            self._admit(name, Request(held), advance.roles)
            return 201
        if secret is not None and key is None:
            return 403
        return self._register_unknown(name, Request(held, wishes=wishes), key)

    def _register_unknown(self, name: str, request: Request, key: EnrolmentKey | None) -> int:
        advance = self.advances.get(name)
        if key:
            request.starting_roles = key.roles
            return self._enrol(name, request, key)
        if advance and not advance.is_bound:
            return self._come_unbound(name, request, advance)
        if not self.open:
            return 423
        request.held_reason = "binding-not-met" if advance else None
        request.starting_roles = self.window_roles
        return self._take_down(name, request)

    def connect(self, name: str, password: str) -> bool:
        """Return whether the device is let in."""
        member, held = self.users.get(name), Held(password)
        if member:
            return member.held.password == password
        self.tried.add(name)
        advance, known = self.advances.get(name), self.known(name)
        if advance and advance.is_met_by(held, None) and (known is None or known.yields_to_holder):
            self._admit(name, Request(held), advance.roles)
        elif known:
            known.conflicts += known.status == "pending" and known.held.password not in (None, password)
            self._see_again(known)
        elif advance and not advance.is_bound:
            self._come_unbound(name, Request(held), advance)
        else:
            roles = self.window_roles if self.open else frozenset()
            reason = "binding-not-met" if advance else None
            request = Request(held, while_locked=not self.open, starting_roles=roles, held_reason=reason)
            self._take_down(name, request)
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

    def preauthorize(self, name: str, advance: Advance) -> int:
        known = self.known(name)
        if name in self.users or name in self.advances:
            return 409
        if known and not (known.status == "pending" and advance.is_bound):
            return 409
        advance.is_held = name in self.tried and not advance.is_bound
        self.advances[name] = advance
        return 201

    def create_user(self, name: str, password: str) -> int:
        if name in self.users:
            return 409
        self.users[name] = Member(Held(password))
        return 201

    def a_day_passes(self) -> None:
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
        advance = self.advances.get(name)
        if advance and advance.is_bound:
            return 409
        if advance and advance.is_held:
            request.held_reason = "tried-before"
        if key.approval_required or request.held_reason:
            answer = self._take_down(name, request)
        else:
            self._admit(name, request, request.starting_roles)
            answer = 201
        key.uses -= 1
        return answer

    def _come_unbound(self, name: str, request: Request, advance: Advance) -> int:
        """Take the first contact of a name whose grant in advance is for whoever comes."""
        request.starting_roles = advance.roles
        if advance.is_held:
            request.held_reason = "tried-before"
            return self._take_down(name, request)
        self._admit(name, request, advance.roles)
        return 201

    def _take_down(self, name: str, request: Request) -> int:
        """Record it; of those recorded under the same lock, the oldest that never came back makes room."""
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
        self.advances.pop(name, None)
        self.requests[name] = request
        self.users[name] = Member(request.held, roles)
        self.certificates[name] = self.certificates.get(name, 0) + (request.held.key is not None)

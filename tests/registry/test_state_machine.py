"""No sequence of requests makes a user that nobody granted, two users, or one with rights that no grant named."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections import Counter
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from authsvc.accounts import bootstrap, users
from authsvc.policy.decision import Denied
from authsvc.settings import Settings
from authsvc.storage.database import database, session
from authsvc.storage.models import Certificate
from registry import decisions, preauthorization_match
from registry.models import Registration
from tests.registry import reference_model
from tests.registry.environment import REGISTRATIONS, Place, done, stored, time_passes
from tests.registry.reference_model import MAX_LOCKED, MAX_PENDING, Advance, Held, Ledger
from tests.registry.signing import new_key, signing_request
from tests.registry.test_enrolment_keys import KEYS
from tests.registry.test_preauthorizations import ADVANCES, fingerprint

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

NAMES = ["bob", "carol", "dave"]
PASSWORDS = ["the first secret", "the second secret"]
STAFF = {"admin", "alice", "charlie"}
HARMLESS = frozenset({"press", "line"})
EVERYTHING = HARMLESS | {"admin"}

names = st.sampled_from(NAMES)
passwords = st.sampled_from(PASSWORDS)
pockets = st.sampled_from([0, 1])
roles = st.frozensets(st.sampled_from(sorted(EVERYTHING)), max_size=2)
harmless = st.frozensets(st.sampled_from(sorted(HARMLESS)), max_size=1)


@cache
def key_of(number: int) -> EllipticCurvePrivateKey:
    return new_key()


@cache
def csr_of(name: str, number: int) -> str:
    return signing_request(name, key_of(number))


class Registry(RuleBasedStateMachine):
    """The service and the ledger, told the same things."""

    def __init__(self, inhabited_directory: Path) -> None:
        super().__init__()
        # In memory where there is such a place: a thousand transactions would wait for the disk most of the time.
        memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self.home = Path(tempfile.mkdtemp(prefix="authsvc-registry-", dir=memory))
        directory = self.home / "data"
        shutil.copytree(inhabited_directory, directory)
        chosen = Settings(
            directory,
            f"sqlite:///{directory}/authsvc.db",
            bcrypt_cost=4,
            registry_max_pending=MAX_PENDING,
            registry_max_locked=MAX_LOCKED,
            registry_address_attempts_per_minute=10_000,
            registry_attempts_per_minute=10_000,
        )
        bootstrap.open_database(chosen)
        self.place = Place.opened(chosen)
        self.ledger = Ledger()
        # Two keys for each name, by number; one that was certified is good for nobody else, so it is replaced.
        self.numbers = itertools.count()
        self.pockets = {name: [next(self.numbers), next(self.numbers)] for name in NAMES}
        self.key_secrets: list[str] = []
        self.key_entries: list[reference_model.EnrolmentKey] = []
        self.secrets: dict[str, str] = {}

    def teardown(self) -> None:
        self.place.close()
        database.initialize(None)
        shutil.rmtree(self.home)

    @rule(name=names, password=passwords)
    def a_device_connects(self, name: str, password: str) -> None:
        assert self.place.connects(name, password) is self.ledger.connect(name, password)

    @rule(name=names, password=st.none() | passwords, pocket=st.none() | pockets, wishes=roles,
          which=st.none() | pockets, whose_secret=st.none() | names)  # fmt: skip
    def a_client_registers(
        self,
        name: str,
        password: str | None,
        pocket: int | None,
        wishes: frozenset[str],
        which: int | None,
        whose_secret: str | None,
    ) -> None:
        if password is None and pocket is None:
            return
        held = Held(password, None if pocket is None else self.pockets[name][pocket])
        body = {"password": password} if password else {}
        if held.key is not None:
            body["csr"] = csr_of(name, held.key)
        key = None
        if which is not None and which < len(self.key_secrets):
            body["enrolmentKey"], key = self.key_secrets[which], self.key_entries[which]
        secret = None if key else self.secrets.get(whose_secret or "")
        if secret:
            body["enrolmentKey"] = secret
        answer = self.place.registers(name, roles=sorted(wishes), **body)
        assert answer.status_code == self.ledger.register(name, held, wishes, key, secret), answer.text

    @precondition(lambda self: self.secrets)
    @rule(one=st.data())
    def a_device_connects_with_its_secret(self, one: st.DataObject) -> None:
        name = one.draw(st.sampled_from(sorted(self.secrets)))
        self.a_device_connects(name=name, password=self.secrets[name])

    @precondition(lambda self: self.ledger.open and self._unheard_of())
    @rule(one=st.data(), password=passwords, wishes=roles)
    def a_stranger_asks_at_the_open_window(self, one: st.DataObject, password: str, wishes: frozenset[str]) -> None:
        name = one.draw(st.sampled_from(self._unheard_of()))
        self.a_client_registers(name=name, password=password, pocket=None, wishes=wishes, which=None, whose_secret=None)

    @initialize()
    def the_day_begins_with_an_open_window(self) -> None:
        self.alice_unlocks(starting_roles=frozenset())

    @rule(starting_roles=harmless)
    def alice_unlocks(self, starting_roles: frozenset[str]) -> None:
        self.place.unlock(roles=sorted(starting_roles))
        self.ledger.open, self.ledger.window_roles = True, starting_roles

    @precondition(lambda self: self.ledger.open)
    @rule()
    def alice_locks(self) -> None:
        self.place.lock()
        self.ledger.open = False

    @precondition(lambda self: self.ledger.open)
    @rule()
    def the_window_closes(self) -> None:
        time_passes(timedelta(seconds=301))
        self.ledger.open = False

    @precondition(lambda self: self.ledger.pending())
    @rule()
    def a_day_passes(self) -> None:
        time_passes(timedelta(hours=25))
        decisions.expire(24)
        self.ledger.a_day_passes()

    @precondition(lambda self: self._waiting())
    @rule(one=st.data(), given=roles, accept=st.booleans(), by_charlie=st.booleans(), confirmed=st.booleans())
    def somebody_grants(
        self, one: st.DataObject, given: frozenset[str], accept: bool, by_charlie: bool, confirmed: bool
    ) -> None:
        name = one.draw(st.sampled_from(self._waiting()))
        actor, may_give = (self.place.charlie, HARMLESS) if by_charlie else (self.place.alice, EVERYTHING)
        body = {"roles": sorted(given), "acceptRequested": accept}
        body |= {"acceptConflicts": confirmed, "acceptHttpRights": confirmed}
        answer = actor.post(f"{REGISTRATIONS}/{self._id(name)}/grant", body)
        assert answer.status_code == self.ledger.grant(name, given, accept, may_give, confirmed), answer.text

    @precondition(lambda self: self._waiting())
    @rule(one=st.data())
    def alice_denies(self, one: st.DataObject) -> None:
        name = one.draw(st.sampled_from(self._waiting()))
        assert self.place.deny(self._id(name)).status_code == self.ledger.deny(name) == 200

    @precondition(lambda self: self.ledger.requests)
    @rule(name=names)
    def alice_forgets(self, name: str) -> None:
        row = stored(name)
        if row:
            assert self.place.alice.delete(f"{REGISTRATIONS}/{row.id}").status_code == 204
            self.ledger.requests.pop(name, None)

    @precondition(lambda self: self.ledger.users)
    @rule(one=st.data())
    def alice_deletes_a_user(self, one: st.DataObject) -> None:
        name = one.draw(st.sampled_from(sorted(self.ledger.users)))
        assert self.place.alice.delete(f"/api/users/{name}").status_code == 204
        del self.ledger.users[name]
        self.pockets[name] = [next(self.numbers), next(self.numbers)]

    @precondition(lambda self: self._without_user())
    @rule(one=st.data(), password=passwords)
    def alice_makes_a_user(self, one: st.DataObject, password: str) -> None:
        name = one.draw(st.sampled_from(self._without_user()))
        answer = self.place.alice.post("/api/users", {"username": name, "password": password})
        assert answer.status_code == self.ledger.create_user(name, password) == 201, answer.text

    @rule(name=names, given=harmless, binding=st.sampled_from(["key", "secret", "nothing"]))
    def alice_preauthorizes(self, name: str, given: frozenset[str], binding: str) -> None:
        body = {"username": name, "roles": sorted(given), "withSecret": binding == "secret"}
        key = self.pockets[name][0] if binding == "key" else None
        if key is not None:
            body["csrFingerprint"] = fingerprint(key_of(key))
        answer = self.place.alice.post(ADVANCES, body)
        secret = answer.get_json().get("secret")
        if secret:
            self.secrets[name] = secret
        advance = Advance(given, key, secret or ("none was made" if binding == "secret" else None))
        assert answer.status_code == self.ledger.preauthorize(name, advance), answer.text
        # Every process does so soon, and what it has in memory knows nothing of the days that pass here.
        preauthorization_match.hold_attempted(self.place.attempted)

    @precondition(lambda self: len(self.key_secrets) < 2)
    @rule(given=harmless, approval=st.booleans())
    def alice_makes_a_key(self, given: frozenset[str], approval: bool) -> None:
        body = {"label": "hall 3", "uses": 2, "roles": sorted(given), "approvalRequired": approval}
        self.key_secrets.append(done(self.place.alice.post(KEYS, body))["secret"])
        self.key_entries.append(reference_model.EnrolmentKey(2, given, approval))

    @invariant()
    def every_user_is_somebodys_doing_and_has_what_was_named(self) -> None:
        found = {user.username: user for user in users.search("", 1, 100).items if user.username not in STAFF}
        assert {name: frozenset(user.roles) for name, user in found.items()} == {
            name: member.roles for name, member in self.ledger.users.items()
        }
        assert not any(user.permissions for user in found.values())

    @invariant()
    def a_password_works_if_it_is_the_one_that_was_granted(self) -> None:
        self.place.services.policy.catch_up()
        check = self.place.services.access.authenticate_password
        for name, member in self.ledger.users.items():
            candidates = [*PASSWORDS, *self.secrets.values()]
            right = [password for password in candidates if not isinstance(check(name, password), Denied)]
            assert right == ([member.held.password] if member.held.password else [])

    @invariant()
    def every_registration_stands_where_it_ought_to(self) -> None:
        with session():
            rows = list(Registration.select())
            issued = Counter(row.username for row in Certificate.select())
        pending = Counter(row.recorded_while_locked for row in rows if row.status == "pending")
        assert pending[False] <= MAX_PENDING
        assert pending[True] <= MAX_LOCKED
        for row in rows:
            entry = self.ledger.requests.get(row.username)
            assert entry is None or entry.status == row.status
            if row.status in ("denied", "expired"):
                assert (row.password_hash, row.public_key) == (None, None)
        recorded = {row.username for row in rows}
        assert {name for name in self.ledger.requests if self.ledger.known(name)} <= recorded
        assert issued == Counter(self.ledger.certificates)

    def _waiting(self) -> list[str]:
        return [name for name, request in self.ledger.requests.items() if request.status == "pending"]

    def _without_user(self) -> list[str]:
        """Return names to make users of; who registered earlier and is gone is tested elsewhere."""
        requests, users_ = self.ledger.requests, self.ledger.users
        return [
            name
            for name in NAMES
            if name not in users_ and (name not in requests or requests[name].status != "granted")
        ]

    def _unheard_of(self) -> list[str]:
        return [name for name in self._without_user() if name not in self.ledger.requests | self.ledger.advances]

    def _id(self, name: str) -> str:
        row = stored(name)
        assert row
        registration: str = row.id
        return registration


def test_whatever_happens_nobody_gets_in_whom_nobody_let_in(inhabited_directory: Path) -> None:
    run_state_machine_as_test(
        lambda: Registry(inhabited_directory),  # type: ignore[arg-type]  # any factory will do
        settings=settings(
            max_examples=20,
            stateful_step_count=50,
            # Shrinking forty steps against a database takes longer than reading them.
            phases=(Phase.explicit, Phase.reuse, Phase.generate),
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )

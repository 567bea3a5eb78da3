"""No sequence of requests makes a user that nobody granted, two users, or one with rights that no grant named."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from authsvc import first_start, users
from authsvc.settings import Settings
from authsvc.storage.database import database, session
from authsvc.storage.models import Certificate
from registry import decisions
from registry.models import Registration
from tests.registry import ledger
from tests.registry.ledger import MAX_PENDING, Advance, Held, Ledger
from tests.registry.scene import REGISTRATIONS, Place, done, time_passes
from tests.registry.signing import new_key, signing_request
from tests.registry.test_enrolment_keys import KEYS
from tests.registry.test_preauthorizations import ADVANCES, fingerprint

PASSWORDS = ["the first secret", "the second secret"]
STAFF = {"admin", "alice", "charlie"}
HARMLESS = frozenset({"press", "line"})
EVERYTHING = HARMLESS | {"admin"}
_KEYS = [new_key(), new_key()]

names = st.sampled_from(["bob", "carol", "dave"])
passwords = st.sampled_from(PASSWORDS)
keys = st.sampled_from([0, 1])
holdings = st.builds(Held, passwords, st.none() | keys) | st.builds(Held, key=keys)
roles = st.frozensets(st.sampled_from(sorted(EVERYTHING)), max_size=2)
harmless = st.frozensets(st.sampled_from(sorted(HARMLESS)), max_size=1)


@cache
def csr_of(name: str, key: int) -> str:
    return signing_request(name, _KEYS[key])


class Registry(RuleBasedStateMachine):
    """The service and the ledger, told the same things."""

    def __init__(self, inhabited_directory: Path) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="authsvc-registry-"))
        directory = self.home / "data"
        shutil.copytree(inhabited_directory, directory)
        chosen = Settings(
            directory,
            f"sqlite:///{directory}/authsvc.db",
            bcrypt_cost=4,
            registry_max_pending=MAX_PENDING,
            registry_attempts_per_minute=10_000,
        )
        first_start.open_database(chosen)
        self.place = Place.opened(chosen)
        self.ledger = Ledger()
        self.key_secrets: list[str] = []
        self.key_entries: list[ledger.EnrolmentKey] = []

    def teardown(self) -> None:
        self.place.close()
        database.initialize(None)
        shutil.rmtree(self.home)

    @rule(name=names, password=passwords)
    def a_device_connects(self, name: str, password: str) -> None:
        assert self.place.connects(name, password) is self.ledger.connect(name, password)

    @rule(name=names, held=holdings, wishes=roles, which=st.none() | st.integers(0, 1))
    def a_client_registers(self, name: str, held: Held, wishes: frozenset[str], which: int | None) -> None:
        body = {"password": held.password} if held.password else {}
        if held.key is not None:
            body["csr"] = csr_of(name, held.key)
        key = None
        if which is not None and which < len(self.key_secrets):
            body["enrolmentKey"], key = self.key_secrets[which], self.key_entries[which]
        answer = self.place.registers(name, roles=sorted(wishes), **body)
        assert answer.status_code == self.ledger.register(name, held, wishes, key), answer.text

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

    @precondition(lambda self: self._recorded())
    @rule(one=st.data(), given=harmless, accept=st.booleans(), by_charlie=st.booleans())
    def somebody_grants(self, one: st.DataObject, given: frozenset[str], accept: bool, by_charlie: bool) -> None:
        name, registration = self._draw(one)
        actor, may_give = (self.place.charlie, HARMLESS) if by_charlie else (self.place.alice, EVERYTHING)
        body = {"roles": sorted(given), "acceptRequested": accept}
        answer = actor.post(f"{REGISTRATIONS}/{registration}/grant", body)
        assert answer.status_code == self.ledger.grant(name, given, accept, may_give), answer.text

    @precondition(lambda self: self._recorded())
    @rule(one=st.data())
    def alice_denies(self, one: st.DataObject) -> None:
        name, registration = self._draw(one)
        assert self.place.deny(registration).status_code == self.ledger.deny(name)

    @precondition(lambda self: self._recorded())
    @rule(one=st.data())
    def alice_forgets(self, one: st.DataObject) -> None:
        name, registration = self._draw(one)
        assert self.place.alice.delete(f"{REGISTRATIONS}/{registration}").status_code == 204
        del self.ledger.requests[name]

    @precondition(lambda self: self.ledger.users)
    @rule(one=st.data())
    def alice_deletes_a_user(self, one: st.DataObject) -> None:
        name = one.draw(st.sampled_from(sorted(self.ledger.users)))
        assert self.place.alice.delete(f"/api/users/{name}").status_code == 204
        del self.ledger.users[name]

    @rule(name=names, password=passwords)
    def alice_makes_a_user(self, name: str, password: str) -> None:
        if self._left_behind(name):
            return
        answer = self.place.alice.post("/api/users", {"username": name, "password": password})
        assert answer.status_code == self.ledger.create_user(name, password), answer.text

    @rule(name=names, given=harmless, key=st.none() | st.just(0))
    def alice_preauthorizes(self, name: str, given: frozenset[str], key: int | None) -> None:
        if self._left_behind(name):
            return
        body = {"username": name, "roles": sorted(given)}
        if key is not None:
            body["csrFingerprint"] = fingerprint(_KEYS[key])
        answer = self.place.alice.post(ADVANCES, body)
        assert answer.status_code == self.ledger.preauthorize(name, Advance(given, key)), answer.text

    @precondition(lambda self: len(self.key_secrets) < 2)
    @rule(given=harmless, approval=st.booleans())
    def alice_makes_a_key(self, given: frozenset[str], approval: bool) -> None:
        body = {"label": "hall 3", "uses": 2, "roles": sorted(given), "approvalRequired": approval}
        self.key_secrets.append(done(self.place.alice.post(KEYS, body))["secret"])
        self.key_entries.append(ledger.EnrolmentKey(2, given, approval))

    @invariant()
    def every_user_is_somebodys_doing_and_has_what_was_named(self) -> None:
        found = {user.username: user for user in users.search("", 1, 100).items if user.username not in STAFF}
        assert {name: frozenset(user.roles) for name, user in found.items()} == {
            name: member.roles for name, member in self.ledger.users.items()
        }
        assert not any(user.permissions for user in found.values())

    @invariant()
    def a_password_works_if_it_is_the_one_that_was_granted(self) -> None:
        services = self.place.services
        services.policy.catch_up()
        for name in ("bob", "carol", "dave"):
            member = self.ledger.users.get(name)
            right = [one for one in PASSWORDS if services.access.may_log_in(name, one, datetime.now(UTC))]
            assert right == ([member.held.password] if member and member.held.password else [])

    @invariant()
    def every_registration_stands_where_it_ought_to(self) -> None:
        with session():
            rows = list(Registration.select())
            issued = Counter(row.username for row in Certificate.select())
        assert sum(row.status == "pending" for row in rows) <= MAX_PENDING
        for row in rows:
            entry = self.ledger.requests.get(row.username)
            assert entry is None or entry.status == row.status
            if row.status in ("denied", "expired"):
                assert (row.password_hash, row.public_key) == (None, None)
        recorded = {row.username for row in rows}
        assert {name for name in self.ledger.requests if self.ledger.known(name)} <= recorded
        assert issued == Counter(self.ledger.certificates)

    def _draw(self, one: st.DataObject) -> tuple[str, str]:
        """Return the name and id of a registration."""
        recorded = self._recorded()
        name = one.draw(st.sampled_from(sorted(recorded)))
        return name, recorded[name]

    def _recorded(self) -> dict[str, str]:
        """Return the ids of registrations by name; of what was settled long ago, those that are not forgotten yet."""
        with session():
            return {row.username: row.id for row in Registration.select() if row.username in self.ledger.requests}

    def _left_behind(self, name: str) -> bool:
        """Say whether there is a registration that counts no more; what then happens is tested elsewhere."""
        return name in self.ledger.requests and self.ledger.known(name) is None


def test_whatever_happens_nobody_gets_in_whom_nobody_let_in(inhabited_directory: Path) -> None:
    run_state_machine_as_test(
        lambda: Registry(inhabited_directory),  # type: ignore[arg-type]  # any factory will do
        settings=settings(
            max_examples=25,
            stateful_step_count=50,
            # Shrinking forty steps against a database takes longer than reading them.
            phases=(Phase.explicit, Phase.reuse, Phase.generate),
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )

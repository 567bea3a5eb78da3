"""Random sequences of requests have the same results as in the reference model."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections import Counter
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
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
from registry import decisions, preauthorizations
from registry.models import Registration
from tests.registry import reference_model
from tests.registry.environment import REGISTRATIONS, Environment, expect_success, shift_time, stored_registration
from tests.registry.reference_model import MAX_LOCKED, MAX_PENDING, Held, ModelPreauthorization, RegistryModel
from tests.registry.signing import new_key, signing_request
from tests.registry.test_enrolment_keys import KEYS
from tests.registry.test_preauthorizations import PREAUTHORIZATIONS, fingerprint

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

pytestmark = pytest.mark.slow

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
    """Sends the same requests to the service and to the reference model."""

    def __init__(self, seeded_directory: Path) -> None:
        super().__init__()
        # In memory if possible: a thousand transactions would mostly wait for the disk.
        memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self.home = Path(tempfile.mkdtemp(prefix="authsvc-registry-", dir=memory))
        directory = self.home / "data"
        shutil.copytree(seeded_directory, directory)
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
        self.env = Environment.opened(chosen)
        self.model = RegistryModel()
        # Two keys for each name, by number. A certified key cannot be used again, so it is replaced.
        self.numbers = itertools.count()
        self.pockets = {name: [next(self.numbers), next(self.numbers)] for name in NAMES}
        self.key_secrets: list[str] = []
        self.key_entries: list[reference_model.EnrolmentKey] = []
        self.secrets: dict[str, str] = {}

    def teardown(self) -> None:
        self.env.close()
        database.initialize(None)
        shutil.rmtree(self.home)

    @rule(name=names, password=passwords)
    def a_device_connects(self, name: str, password: str) -> None:
        assert self.env.connect(name, password) is self.model.connect(name, password)

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
        answer = self.env.register(name, roles=sorted(wishes), **body)
        assert answer.status_code == self.model.register(name, held, wishes, key, secret), answer.text

    @precondition(lambda self: self.secrets)
    @rule(one=st.data())
    def a_device_connects_with_its_secret(self, one: st.DataObject) -> None:
        name = one.draw(st.sampled_from(sorted(self.secrets)))
        self.a_device_connects(name=name, password=self.secrets[name])

    @precondition(lambda self: self.model.open and self._unheard_of())
    @rule(one=st.data(), password=passwords, wishes=roles)
    def a_stranger_asks_at_the_open_window(self, one: st.DataObject, password: str, wishes: frozenset[str]) -> None:
        name = one.draw(st.sampled_from(self._unheard_of()))
        self.a_client_registers(name=name, password=password, pocket=None, wishes=wishes, which=None, whose_secret=None)

    @initialize()
    def the_day_begins_with_an_open_window(self) -> None:
        self.alice_unlocks(starting_roles=frozenset())

    @rule(starting_roles=harmless)
    def alice_unlocks(self, starting_roles: frozenset[str]) -> None:
        self.env.unlock(roles=sorted(starting_roles))
        self.model.open, self.model.window_roles = True, starting_roles

    @precondition(lambda self: self.model.open)
    @rule()
    def alice_locks(self) -> None:
        self.env.lock()
        self.model.open = False

    @precondition(lambda self: self.model.open)
    @rule()
    def the_window_closes(self) -> None:
        shift_time(timedelta(seconds=301))
        self.model.open = False

    @precondition(lambda self: self.model.pending())
    @rule()
    def expire_pending(self) -> None:
        shift_time(timedelta(hours=25))
        decisions.expire(24)
        self.model.expire_pending()

    @precondition(lambda self: self._waiting())
    @rule(one=st.data(), given=roles, accept=st.booleans(), by_charlie=st.booleans(), confirmed=st.booleans())
    def somebody_grants(
        self, one: st.DataObject, given: frozenset[str], accept: bool, by_charlie: bool, confirmed: bool
    ) -> None:
        name = one.draw(st.sampled_from(self._waiting()))
        actor, may_give = (self.env.charlie, HARMLESS) if by_charlie else (self.env.alice, EVERYTHING)
        body = {"roles": sorted(given), "acceptRequested": accept}
        body |= {"acceptConflicts": confirmed, "acceptHttpRights": confirmed}
        answer = actor.post(f"{REGISTRATIONS}/{self._id(name)}/grant", body)
        assert answer.status_code == self.model.grant(name, given, accept, may_give, confirmed), answer.text

    @precondition(lambda self: self._waiting())
    @rule(one=st.data())
    def alice_denies(self, one: st.DataObject) -> None:
        name = one.draw(st.sampled_from(self._waiting()))
        assert self.env.deny(self._id(name)).status_code == self.model.deny(name) == 200

    @precondition(lambda self: self.model.requests)
    @rule(name=names)
    def alice_forgets(self, name: str) -> None:
        row = stored_registration(name)
        if row:
            assert self.env.alice.delete(f"{REGISTRATIONS}/{row.id}").status_code == 204
            self.model.requests.pop(name, None)

    @precondition(lambda self: self.model.users)
    @rule(one=st.data())
    def alice_deletes_a_user(self, one: st.DataObject) -> None:
        name = one.draw(st.sampled_from(sorted(self.model.users)))
        assert self.env.alice.delete(f"/api/users/{name}").status_code == 204
        del self.model.users[name]
        self.pockets[name] = [next(self.numbers), next(self.numbers)]

    @precondition(lambda self: self._without_user())
    @rule(one=st.data(), password=passwords)
    def alice_makes_a_user(self, one: st.DataObject, password: str) -> None:
        name = one.draw(st.sampled_from(self._without_user()))
        answer = self.env.alice.post("/api/users", {"username": name, "password": password})
        assert answer.status_code == self.model.create_user(name, password) == 201, answer.text

    @rule(name=names, given=harmless, binding=st.sampled_from(["key", "secret", "nothing"]))
    def alice_preauthorizes(self, name: str, given: frozenset[str], binding: str) -> None:
        body = {"username": name, "roles": sorted(given), "withSecret": binding == "secret"}
        key = self.pockets[name][0] if binding == "key" else None
        if key is not None:
            body["csrFingerprint"] = fingerprint(key_of(key))
        answer = self.env.alice.post(PREAUTHORIZATIONS, body)
        secret = answer.get_json().get("secret")
        if secret:
            self.secrets[name] = secret
        preauthorization = ModelPreauthorization(
            given, key, secret or ("none was made" if binding == "secret" else None)
        )
        assert answer.status_code == self.model.preauthorize(name, preauthorization), answer.text
        # A periodic job does this. The names in memory do not follow the shifted time.
        preauthorizations.hold_attempted_names(self.env.attempted)

    @precondition(lambda self: len(self.key_secrets) < 2)
    @rule(given=harmless, approval=st.booleans())
    def alice_makes_a_key(self, given: frozenset[str], approval: bool) -> None:
        body = {"label": "hall 3", "uses": 2, "roles": sorted(given), "approvalRequired": approval}
        self.key_secrets.append(expect_success(self.env.alice.post(KEYS, body))["secret"])
        self.key_entries.append(reference_model.EnrolmentKey(2, given, approval))

    @invariant()
    def every_user_is_somebodys_doing_and_has_what_was_named(self) -> None:
        found = {
            user.username: user
            for user in users.search(users.UserFilter(""), 1, 100).items
            if user.username not in STAFF
        }
        assert {name: frozenset(user.roles) for name, user in found.items()} == {
            name: member.roles for name, member in self.model.users.items()
        }
        assert not any(user.permissions for user in found.values())

    @invariant()
    def a_password_works_if_it_is_the_one_that_was_granted(self) -> None:
        self.env.services.policy.catch_up()
        check = self.env.services.access.authenticate_password
        for name, member in self.model.users.items():
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
            entry = self.model.requests.get(row.username)
            assert entry is None or entry.status == row.status
            if row.status in ("denied", "expired"):
                assert (row.password_hash, row.public_key) == (None, None)
        recorded = {row.username for row in rows}
        assert {name for name in self.model.requests if self.model.known(name)} <= recorded
        assert issued == Counter(self.model.certificates)

    def _waiting(self) -> list[str]:
        return [name for name, request in self.model.requests.items() if request.status == "pending"]

    def _without_user(self) -> list[str]:
        """Return names for new users. Names with earlier registrations are tested elsewhere."""
        requests, users_ = self.model.requests, self.model.users
        return [
            name
            for name in NAMES
            if name not in users_ and (name not in requests or requests[name].status != "granted")
        ]

    def _unheard_of(self) -> list[str]:
        return [name for name in self._without_user() if name not in self.model.requests | self.model.preauthorizations]

    def _id(self, name: str) -> str:
        row = stored_registration(name)
        assert row
        registration: str = row.id
        return registration


def test_service_behaves_like_the_reference_model(seeded_directory: Path) -> None:
    run_state_machine_as_test(
        lambda: Registry(seeded_directory),  # type: ignore[arg-type]  # any factory will do
        settings=settings(
            max_examples=20,
            stateful_step_count=50,
            # Shrinking forty steps against a database takes too long.
            phases=(Phase.explicit, Phase.reuse, Phase.generate),
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )

"""Preauthorizations in a policy file, and exports that restore the whole policy."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from authsvc.accounts import users
from authsvc.credentials.passwords import PasswordPolicy
from authsvc.errors import Forbidden, InvalidInput
from authsvc.policy_file import text
from authsvc.policy_file.document import PolicyDocument, PolicyPreauthorization
from authsvc.policy_file.plan import PlanOptions
from authsvc.storage.database import transaction
from registry import policy_file, preauthorizations
from registry.preauthorizations import NewPreauthorization
from tests.actors import CHARLIE, HASHER, OPERATOR, mqtt
from tests.policy_file.test_text import documents
from tests.storage.environment import create_role

if TYPE_CHECKING:
    from authsvc.policy_file.plan import Plan

pytestmark = pytest.mark.usefixtures("prepared")

PRUNE = PlanOptions(prune=True)
FILE = """\
roles:
- name: line
  permissions: [readWrite line/#]
preauthorizations:
- username: press-7
  roles: [line]
  permissions: [read x]
  expiresAt: '2999-01-01T00:00:00Z'
- username: press-8
  csrFingerprint: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
"""


def put(given_text: str, options: PlanOptions = PlanOptions()) -> Plan:  # noqa: B008 - immutable
    return policy_file.apply(OPERATOR, text.parse(given_text), options)


def export(*, with_hashes: bool = False) -> str:
    return "".join(text.write(policy_file.read_document(), "schema", with_hashes=with_hashes))


def stored_names() -> list[str]:
    return [one.username for one in preauthorizations.search("", 1, 100).items]


def changes(plan: Plan) -> list[tuple[str, str]]:
    return [(change.action.value, change.name) for change in plan.changes]


def test_a_file_creates_changes_and_removes_preauthorizations() -> None:
    put(FILE)
    first, second = preauthorizations.search("", 1, 10).items
    assert (first.username, first.roles, first.permissions) == ("press-7", ("line",), (mqtt("read", "x"),))
    assert second.csr_fingerprint
    assert not put(FILE).changes
    assert changes(put(FILE.replace("read x", "read y"))) == [("change", "press-7")]
    assert changes(put(FILE.partition("- username: press-8")[0].replace("read x", "read y"), PRUNE)) == [
        ("remove", "press-8")
    ]
    assert stored_names() == ["press-7"]


def test_a_preauthorization_that_was_used_is_left_alone() -> None:
    put(FILE)
    with transaction():
        preauthorizations.consume(preauthorizations.search("press-7", 1, 1).items[0])
    users.create(OPERATOR, "press-7", {}, HASHER)
    plan = put(FILE, PRUNE)
    assert not plan.changes
    assert [(each.name, each.reason) for each in plan.left_alone] == [("press-7", "is a user by now")]


def test_an_expired_preauthorization_is_left_alone() -> None:
    plan = put("preauthorizations:\n- username: press-7\n  expiresAt: '2020-01-01T00:00:00Z'\n")
    assert [each.reason for each in plan.left_alone] == ["has expired"]
    assert stored_names() == []


def test_a_secret_is_kept_and_restored_only_from_its_digest() -> None:
    wanted = NewPreauthorization("press-7", with_secret=True)
    ((_, secret),) = preauthorizations.create(OPERATOR, [wanted], PasswordPolicy())
    plain, complete = export(), export(with_hashes=True)
    assert secret
    assert secret not in complete
    assert "secretDigest" not in plain
    assert not put(plain).changes
    preauthorizations.delete(OPERATOR, preauthorizations.find("press-7"))
    with pytest.raises(InvalidInput, match="press-7: the file does not have the secret's digest"):
        put(plain)
    put(complete)
    assert export(with_hashes=True) == complete


@pytest.mark.parametrize("field", ["roles: [admin]", "permissions: [http read /api/users]"])
def test_rights_over_the_service_need_a_binding(field: str) -> None:
    with pytest.raises(InvalidInput, match=r"preauthorizations\[press-7\].*bind the preauthorization"):
        put(f"preauthorizations:\n- username: press-7\n  {field}\n")
    assert stored_names() == []


def test_nobody_preauthorizes_with_rights_that_they_lack() -> None:
    given_text = FILE.replace("[read x]", "[read x, http read /api/audit]").replace(
        "  expiresAt", "  csrFingerprint: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\n  expiresAt"
    )
    with pytest.raises(Forbidden):
        policy_file.apply(CHARLIE, text.parse(given_text), PlanOptions())
    assert stored_names() == []


def test_a_preauthorization_has_a_secret_or_a_key_and_not_both() -> None:
    both = f"csrFingerprint: {'0' * 64}\n  secretDigest: {'1' * 64}"
    with pytest.raises(InvalidInput, match="press-7: csrFingerprint cannot be combined with a secret"):
        put(f"preauthorizations:\n- username: press-7\n  {both}\n")


def test_a_role_of_a_preauthorization_must_exist() -> None:
    create_role("line")
    with pytest.raises(InvalidInput, match="press-7: there is no role line"):
        put("roles: []\npreauthorizations:\n- username: press-7\n  roles: [line]\n", PRUNE)


_NOBODY = "users:\n- username: admin\n  grantTypes: []\n  roles: [admin]\n"
_moments = st.datetimes(datetime(2100, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
_digests = st.from_regex("[0-9a-f]{64}", fullmatch=True)


@st.composite
def policies(draw: st.DrawFn) -> PolicyDocument:
    """Documents whose users and preauthorizations have roles of the document."""
    document = draw(documents)
    names = [role.name for role in document.roles]
    some = st.lists(st.sampled_from([*names, "minimum-access"])).map(lambda found: tuple(sorted(set(found))))
    given_users = tuple(user.model_copy(update={"roles": draw(some)}) for user in document.users)
    taken = {user.username for user in given_users}
    admitted = draw(
        st.lists(
            st.builds(
                PolicyPreauthorization,
                username=st.from_regex(r"[a-z][a-z0-9]{2,8}", fullmatch=True),
                expires_at=st.none() | _moments,
                secret_digest=st.none() | _digests,
            ),
            unique_by=lambda one: one.username,
            max_size=3,
        )
    )
    return document.model_copy(
        update={
            "users": given_users,
            "preauthorizations": tuple(one for one in admitted if one.username not in taken | {"admin"}),
        }
    )


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(policies())
def test_an_export_restores_the_policy_in_an_empty_database(document: PolicyDocument) -> None:
    put(_NOBODY, PRUNE)
    put("roles: []\npreauthorizations: []", PRUNE)
    policy_file.apply(OPERATOR, document, PlanOptions())
    exported = export(with_hashes=True)
    put(f"roles: []\npreauthorizations: []\n{_NOBODY}", PRUNE)
    assert not put(_NOBODY, PRUNE).changes
    put(exported, PRUNE)
    assert export(with_hashes=True) == exported
    assert not put(exported, PRUNE).changes

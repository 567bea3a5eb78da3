"""Plans and their writing on both databases: what is created, changed, left alone and removed, and what is refused."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from dataclasses import replace

import bcrypt
import pytest
from peewee import IntegrityError

from authsvc.accounts import roles, users
from authsvc.activity import audit, disconnects
from authsvc.credentials.password_hashes import rehash
from authsvc.credentials.rehashing import Rehashed
from authsvc.errors import Conflict, Forbidden, InvalidInput
from authsvc.policy_file import batches, stored, text
from authsvc.policy_file.plan import Action, Kind, Plan, PlanOptions, make_plan
from authsvc.policy_file.writing import apply
from authsvc.storage.changes import current_version, policy_change
from authsvc.storage.database import database, session
from authsvc.storage.models import Role, User, UserRole
from tests.actors import ALICE, BOBS_PASSWORD, CHARLIE, HASHER, OPERATOR, http, mqtt
from tests.storage.environment import create_bob, create_role, policy_of

pytestmark = pytest.mark.usefixtures("prepared")

FILE = """\
roles:
- name: line
  description: Works on a line
  permissions: [readWrite line/#]
  clientIds: ['%u']
users:
- username: press-7
  enabled: false
  grantTypes: [certificate, token]
  roles: [line, minimum-access]
  permissions: [deny read x/#, http read /api/me]
- username: press-8
"""
PRUNE = PlanOptions(prune=True)
KEEP_ADMIN = "- username: admin\n  grantTypes: []\n  roles: [admin]\n"

DENIED_ADMIN = "- username: admin\n  roles: [admin, no]\n"


def put(given: str, options: PlanOptions = PlanOptions(), actor=OPERATOR) -> Plan:  # type: ignore[no-untyped-def] # noqa: ANN001, B008
    return apply(actor, text.parse(given), options)


def summary(plan: Plan) -> list[tuple[str, str, str]]:
    return [(change.action.value, change.kind.value, change.name) for change in plan.changes]


def export(*, with_hashes: bool = False) -> str:
    with session():
        return "".join(text.write(stored.read_document(), "schema", with_hashes=with_hashes))


def events_of(action: str) -> list[audit.Event]:
    return audit.events(1, 100, audit.AuditFilter(action=action)).items


def test_a_file_creates_roles_and_users() -> None:
    plan = put(FILE)
    assert summary(plan) == [("create", "role", "line"), ("create", "user", "press-7"), ("create", "user", "press-8")]
    press = users.get("press-7")
    assert (press.enabled, press.roles) == (False, ("line", "minimum-access"))
    assert press.permissions == (mqtt("read", "x/#", "deny"), http("read", "/api/me"))
    assert roles.get("line").client_ids == ("%u",)
    assert not users.get("press-8").has_password


def test_a_second_apply_changes_nothing() -> None:
    put(FILE)
    version, count = current_version(), len(audit.events(1, 1000, audit.AuditFilter()).items)
    plan = put(FILE)
    assert (plan.changes, plan.unchanged, plan.left_alone) == ((), 3, ())
    assert (current_version(), len(audit.events(1, 1000, audit.AuditFilter()).items)) == (version, count)


def test_more_users_than_one_statement_inserts_are_stored_as_given() -> None:
    blocks = (
        f"- username: press-{number}\n  enabled: {'true' if number % 2 else 'false'}\n  roles: [minimum-access]\n"
        f"  permissions: ['write ü/\\\\N/{number}', 'deny read x/%u']\n  clientIds: ['%u', 'a \\\\ {number}']\n"
        for number in range(1100)
    )
    given = "users:\n" + "".join(blocks)
    put(given)
    wanted = {user.username: user for user in text.parse(given).users or ()}
    with session():
        found = {user.username: user for user in stored.read_document().users or ()}
    assert len(wanted) == 1100
    assert {name: found[name] for name in wanted} == wanted
    assert not put(given).changes
    created = audit.events(1, 2000, audit.AuditFilter(action="user.create")).items
    assert {event.target for event in created} >= {f"user:{name}" for name in wanted}


def test_all_changes_have_one_policy_version() -> None:
    before = current_version()
    put(FILE)
    assert current_version() == before + 1


def test_an_export_changes_nothing() -> None:
    put(FILE)
    create_bob(roles=("line",), permissions=(mqtt("write", "b"), mqtt("read", "a")))
    for options in (PlanOptions(), PRUNE):
        assert not put(export(), options).changes
        assert not put(export(with_hashes=True), options).changes


def test_a_changed_file_changes_only_what_differs() -> None:
    put(FILE)
    plan = put(FILE.replace("enabled: false", "enabled: true").replace("deny read x/#", "deny read y/#"))
    assert summary(plan) == [("change", "user", "press-7")]
    assert [tuple(each) for each in plan.changes[0].differences()] == [
        ("enabled", False, True),
        ("permissions", ["deny read x/#", "http read /api/me"], ["deny read y/#", "http read /api/me"]),
    ]
    assert users.get("press-7").permissions == (mqtt("read", "y/#", "deny"), http("read", "/api/me"))
    (event,) = events_of("user.change")
    assert event.before
    assert event.after
    assert (event.before["enabled"], event.after["enabled"]) == (False, True)
    assert set(event.after) == {"enabled", "permissions"}


def test_a_role_is_changed_and_its_users_stay() -> None:
    put(FILE)
    plan = put(FILE.replace("readWrite line/#", "read line/#"))
    assert summary(plan) == [("change", "role", "line")]
    assert roles.get("line").permissions == (mqtt("read", "line/#"),)


def test_without_prune_nothing_is_removed() -> None:
    put(FILE)
    assert not put("users: []").changes
    assert users.exists("press-7")


def test_prune_removes_what_the_file_does_not_name() -> None:
    put(FILE)
    plan = put(f"roles: []\nusers:\n{KEEP_ADMIN}- username: press-8\n", PRUNE)
    assert summary(plan) == [("remove", "user", "press-7"), ("remove", "role", "line")]
    assert not users.exists("press-7")
    (event,) = events_of("user.delete")
    assert event.before
    assert event.before["roles"] == ["line", "minimum-access"]


def test_prune_leaves_lists_alone_that_the_file_does_not_have() -> None:
    put(FILE)
    assert not put("roles:\n" + FILE.partition("users:")[0].removeprefix("roles:\n"), PRUNE).changes
    assert users.exists("press-7")


def test_prune_keeps_a_user_that_a_preauthorization_of_the_file_admitted() -> None:
    put(FILE)
    given = f"users:\n{KEEP_ADMIN}- username: press-8\npreauthorizations:\n- username: press-7\n"
    assert not make_plan(OPERATOR, text.parse(given), PRUNE).changes


def test_without_update_existing_entries_are_left_alone() -> None:
    put(FILE)
    changed = FILE.replace("enabled: false", "enabled: true").replace("line/#", "row/#") + "- username: press-9\n"
    plan = put(changed, PlanOptions(update=False))
    assert summary(plan) == [("create", "user", "press-9")]
    assert [each.name for each in plan.left_alone] == ["line", "press-7"]
    assert plan.unchanged == 1
    assert not users.get("press-7").enabled


def test_each_audit_event_has_the_digest_of_the_file() -> None:
    put(FILE, actor=replace(OPERATOR, policy_file="sha256:0123"))
    put(f"roles: []\nusers:\n{KEEP_ADMIN}", PRUNE, replace(OPERATOR, policy_file="sha256:4567"))
    created = [*events_of("role.create"), *events_of("user.create")]
    assert [event.target for event in created if (event.after or {}).get("policyFile") == "sha256:0123"] == [
        "role:line",
        "user:press-8",
        "user:press-7",
    ]
    removed = [*events_of("role.delete"), *events_of("user.delete")]
    assert [event.after for event in removed] == [{"policyFile": "sha256:4567"}] * 3


def test_a_password_hash_of_the_file_becomes_the_password() -> None:
    create_bob()
    new_hash = bcrypt.hashpw(b"another", bcrypt.gensalt(4)).decode()
    given = f"users:\n- username: bob\n  passwordHash: {new_hash}\n"
    plan = put(given)
    assert plan.changes[0].differences() == [("password", None, "changed")]
    assert new_hash not in repr(plan)
    assert policy_of("bob").password_hash == new_hash
    assert not put(given).changes
    assert not put("users:\n- username: bob\n").changes
    assert policy_of("bob").password_hash == new_hash
    (event,) = events_of("user.change")
    assert event.after == {"password": "changed"}


def test_a_foreign_hash_does_not_replace_the_bcrypt_hash_that_replaced_it() -> None:
    salt = b"sixteen bytes ok"
    foreign = f"$6${b64encode(salt).decode()}${b64encode(hashlib.sha512(b'secret' + salt).digest()).decode()}"
    given = f"users:\n- username: bob\n  passwordHash: {foreign}\n"
    put(given)
    replacement = rehash(foreign, b"secret", 4)
    users.replace_hashes([Rehashed("bob", foreign, replacement)])
    assert not put(given).changes
    assert policy_of("bob").password_hash == replacement
    users.change(OPERATOR, "bob", {"password": BOBS_PASSWORD}, HASHER)
    assert put(given).changes[0].differences() == [("password", None, "changed")]
    assert policy_of("bob").password_hash == foreign


@pytest.mark.parametrize(
    ("field", "cause"),
    [
        ("enabled: false", "user disabled"),
        ("grantTypes: [token]", "grant type removed"),
        (f"passwordHash: $2b$04${'a' * 53}", "password changed"),
    ],
)
def test_a_change_that_ends_access_ends_the_sessions(field: str, cause: str) -> None:
    create_bob()
    put(f"users:\n- username: bob\n  {field}\n")
    rows = database.execute_sql("SELECT username, cause FROM session_endings").fetchall()
    assert rows == [("bob", cause)]


def test_a_removed_user_loses_its_sessions() -> None:
    create_bob()
    put(f"users:\n{KEEP_ADMIN}", PRUNE)
    rows = database.execute_sql("SELECT username, cause FROM session_endings").fetchall()
    assert rows == [("bob", disconnects.USER_REMOVED)]


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ("users: []", PRUNE),
        ("users:\n- username: admin\n", PlanOptions()),
        ("users:\n- username: admin\n  roles: [admin]\n  enabled: false\n", PlanOptions()),
        ("users:\n- username: admin\n  roles: [admin]\n  permissions: [deny http write /#]\n", PlanOptions()),
        (f"roles:\n- name: no\n  permissions: [deny http write /#]\nusers:\n{DENIED_ADMIN}", PlanOptions()),
    ],
)
def test_the_last_administrator_is_neither_removed_nor_disarmed(given: str, options: PlanOptions) -> None:
    before = export()
    with pytest.raises(Conflict, match="last administrator"):
        put(given, options)
    assert export() == before


def test_an_administrator_can_be_replaced_by_another_one_of_the_file() -> None:
    new_hash = bcrypt.hashpw(b"another", bcrypt.gensalt(4)).decode()
    put(f"users:\n- username: root\n  roles: [admin]\n  passwordHash: {new_hash}\n", PRUNE)
    assert not users.exists("admin")


def test_a_user_of_an_unknown_role_is_refused_by_name() -> None:
    with pytest.raises(InvalidInput) as raised:
        put("users:\n- username: press-7\n  roles: [line, admin]\n")
    assert raised.value.errors == (("users[0].roles", "press-7: there is no role line"),)
    assert not users.exists("press-7")


def test_a_built_in_role_cannot_be_in_a_file() -> None:
    with pytest.raises(InvalidInput, match="admin is built in"):
        put("roles:\n- name: admin\n")


def test_a_role_in_use_is_not_removed() -> None:
    create_role("line", mqtt("read", "a"))
    create_bob(roles=("line",))
    with pytest.raises(Conflict, match="bob has the role line"):
        put("roles: []", PRUNE)
    assert roles.get("line")


@pytest.mark.parametrize(
    "given",
    [
        "users:\n- username: press-7\n  permissions: [http read /api/audit]\n",
        "users:\n- username: press-7\n  roles: [admin]\n",
        "users:\n- username: admin\n  roles: [admin]\n  clientIds: [x]\n",
        f"users:\n- username: admin\n  roles: [admin]\n  grantTypes: []\n  passwordHash: $2b$04${'a' * 53}\n",
        "roles:\n- name: line\n  permissions: [http write /api/registry]\n",
        "roles:\n- name: auditors\n",
        "roles: []\n",
    ],
)
def test_nobody_gives_or_changes_rights_that_they_lack(given: str) -> None:
    create_role("auditors", http("read", "/api/audit"))
    before = export()
    with pytest.raises(Forbidden):
        put(given, PlanOptions(prune=given == "roles: []\n"), CHARLIE)
    assert export() == before
    put(given, actor=ALICE)


def test_what_the_caller_does_not_permit_is_not_written() -> None:
    def permit(plan: Plan) -> None:
        assert plan.of(Kind.USER, Action.CREATE)
        raise Forbidden("no")

    with pytest.raises(Forbidden):
        apply(ALICE, text.parse(FILE), PlanOptions(), permit)
    assert not users.exists("press-7")


def test_an_error_while_writing_leaves_the_database_unchanged() -> None:
    before, version = export(), current_version()
    database.execute_sql("CREATE UNIQUE INDEX refuse ON users (enabled) WHERE NOT enabled")
    with pytest.raises(IntegrityError):
        put(FILE + "- username: press-9\n  enabled: false\n")
    assert (export(), current_version()) == (before, version)


def test_a_damaged_user_is_repaired_by_the_file_and_cannot_be_exported() -> None:
    create_bob(permissions=(mqtt("read", "a"),))
    database.execute_sql("UPDATE permissions SET operation = 'reed' WHERE resource = 'a'")
    with pytest.raises(Conflict, match="bob is damaged"):
        export()
    with pytest.raises(Forbidden):
        put("users:\n- username: bob\n", actor=CHARLIE)
    put("users:\n- username: bob\n  permissions: [read a]\n")
    assert users.get("bob").permissions == (mqtt("read", "a"),)
    assert not users.get("bob").damage


def test_a_plan_writes_nothing() -> None:
    before, version = export(), current_version()
    assert make_plan(OPERATOR, text.parse(FILE), PlanOptions()).changes
    assert (export(), current_version()) == (before, version)


@pytest.mark.parametrize("origin", [users.Origin.OIDC, users.Origin.LDAP])
def test_a_user_of_a_provider_or_directory_is_no_part_of_a_file(origin: users.Origin) -> None:
    users.create_with_hash(OPERATOR, "olga", {"roles": ("admin",)}, None, origin)
    assert "olga" not in export(with_hashes=True)
    put(f"users:\n{KEEP_ADMIN}", PRUNE)
    assert users.get("olga").roles == ("admin",)
    with pytest.raises(InvalidInput, match=r"users\[0\].username: olga signs in at its provider or directory"):
        put(f"users:\n- username: olga\n  passwordHash: $2b$04${'a' * 53}\n")
    assert policy_of("olga").password_hash is None


@pytest.mark.parametrize("origin", [users.Origin.OIDC, users.Origin.LDAP])
def test_without_update_a_user_of_a_provider_or_directory_is_left_alone(origin: users.Origin) -> None:
    users.create_with_hash(OPERATOR, "olga", {"roles": ("admin",)}, None, origin)
    plan = put("users:\n- username: olga\n- username: press-7\n", PlanOptions(update=False))
    assert summary(plan) == [("create", "user", "press-7")]
    assert [each.name for each in plan.left_alone] == ["olga"]


def test_with_keep_unset_fields_that_are_not_named_and_roles_given_here_stay() -> None:
    put(FILE)
    create_role("night")
    given = "roles:\n- name: line\n  description: Other\nusers:\n- username: press-7\n  roles: [night]\n"
    plan = put(given, PlanOptions(keep_unset=True))
    assert [(each.name, [tuple(one) for one in each.differences()]) for each in plan.changes] == [
        ("line", [("description", "Works on a line", "Other")]),
        ("press-7", [("roles", ["line", "minimum-access"], ["line", "minimum-access", "night"])]),
    ]
    press = users.get("press-7")
    assert (press.enabled, len(press.permissions), len(press.grant_types)) == (False, 2, 2)
    assert not put(given, PlanOptions(keep_unset=True)).changes


def test_with_keep_unset_a_damaged_user_is_left_alone() -> None:
    create_bob(permissions=(mqtt("read", "a"),))
    database.execute_sql("UPDATE permissions SET operation = 'reed' WHERE resource = 'a'")
    plan = put("users:\n- username: bob\n  enabled: true\n", PlanOptions(keep_unset=True))
    assert (plan.changes, [each.name for each in plan.left_alone]) == ((), ["bob"])
    assert users.get("bob").damage


def test_a_batch_deletes_no_user_whose_groups_give_rights_that_the_actor_lacks() -> None:
    users.create_with_hash(OPERATOR, "olga", {}, None, users.Origin.OIDC)
    with policy_change():
        UserRole.create(user=User.get(User.username == "olga"), role=Role.get(Role.name == "admin"), from_groups=True)
    with pytest.raises(Forbidden):
        batches.delete(CHARLIE, ["olga"], lambda _: None)
    assert users.get("olga").username == "olga"


def test_a_description_has_no_nul() -> None:
    with pytest.raises(InvalidInput, match="description"):
        text.parse('roles:\n- name: line\n  description: "a\\0b"\n')

"""The text of a policy file: YAML and JSON to a document and back, errors with their lines, and the JSON Schema."""

from __future__ import annotations

import json

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from authsvc.errors import InvalidInput
from authsvc.policy.permissions import Context, Effect, Operation, Permission
from authsvc.policy.snapshot import GrantType
from authsvc.policy_file import text
from authsvc.policy_file.document import PolicyDocument, PolicyRole, PolicyUser, json_schema

SCHEMA_URL = "http://127.0.0.1:8080/api/policy.schema.json"
FILE = """\
# yaml-language-server: $schema=http://127.0.0.1:8080/api/policy.schema.json

roles:
- name: line-operator
  description: 'Works on a line: no settings'
  permissions:
  - deny read plant/secret/#
  - readWrite plant/#

users:
- username: press-7
  enabled: false
  grantTypes:
  - certificate
  roles:
  - line-operator
  permissions:
  - http read /api/me
  - readWrite devices/%u/#
  clientIds:
  - '%u'

- username: press-8

preauthorizations:
- username: press-9
  roles:
  - line-operator
  expiresAt: '2027-01-01T00:00:00Z'
  withSecret: true
"""
HASH = "$2b$10$" + "a" * 53


def written(document: PolicyDocument, *, with_hashes: bool = False) -> str:
    return "".join(text.write(document, SCHEMA_URL, with_hashes=with_hashes))


def errors_of(given_text: str) -> list[tuple[str, str]]:
    with pytest.raises(InvalidInput) as raised:
        text.parse(given_text)
    return [(error.field, error.message) for error in raised.value.errors]


def test_a_file_in_the_order_of_an_export_is_written_as_it_was_read() -> None:
    assert written(text.parse(FILE)) == FILE


def test_the_order_of_entries_and_lists_does_not_matter() -> None:
    one = text.parse("users:\n- username: bob\n  permissions: [read b, allow mqtt read a]\n- username: ann\n")
    other = text.parse("users:\n- username: ann\n- username: bob\n  permissions: [read a, read b, read b]\n")
    assert written(one) == written(other)


def test_plain_names_that_look_like_numbers_or_booleans_are_text() -> None:
    document = text.parse("users:\n- username: 0042\n- username: 1e5\n- username: off\n")
    assert [user.username for user in document.users] == ["0042", "1e5", "off"]
    # Other YAML parsers read the written file the same way.
    assert [user["username"] for user in yaml.safe_load(written(document))["users"]] == ["0042", "1e5", "off"]


def test_an_empty_file_is_an_empty_document() -> None:
    assert text.parse("") == text.parse("# nothing\n") == text.parse_json("{}") == PolicyDocument()
    assert errors_of("null")


def test_secrets_are_written_only_if_asked() -> None:
    document = PolicyDocument(users=(PolicyUser(username="press-7", password_hash=HASH),))
    assert HASH not in written(document)
    assert text.parse(written(document, with_hashes=True)) == document
    assert HASH not in repr(document)


def test_every_error_names_its_line_and_field() -> None:
    wrong = """\
users:
- username: press-7
  enabled: yes
  colour: red
  permissions:
  - read a
  - reed b
- enabled: true
"""
    assert errors_of(wrong) == [
        ("users[0].enabled", "line 3: must be true or false"),
        (
            "users[0].permissions[1]",
            "line 7: must be [allow|deny] [mqtt|http] read|write|readWrite RESOURCE",
        ),
        ("users[0].colour", "line 4: is not a known field"),
        ("users[1].username", "line 8: is required"),
    ]


@pytest.mark.parametrize(
    ("wrong", "field", "message"),
    [
        ("users:\n- username: bob\n- username: bob\n", "users[1].username", "line 3: bob is named twice"),
        ("roles:\n- name: r\n- name: r\n", "roles[1].name", "line 3: r is named twice"),
        (
            "users:\n- username: bob\npreauthorizations:\n- username: bob\n",
            "preauthorizations[0].username",
            "line 4: bob is named twice",
        ),
        ("users: []\nusers: []\n", "body", "line 2: users is given twice"),
        ("users: [\n", "body", "line 2: is not valid YAML: did not find expected node content"),
        ("a: &a [x]\nb: *a\n", "body", "line 2: aliases are not supported; give users that share permissions a role"),
        ("users: !!python/name:os.system []\n", "body", "line 1: tags are not supported"),
        ("users: []\n---\nusers: []\n", "body", "line 2: must be one document; remove this ---"),
        ("users: []\n# \x01\n", "body", "line 2: has a character that YAML does not allow"),
        ("[" * 1000, "body", "line 1: is nested too deeply"),
        ("- bob\n", "body", "line 1: must be a JSON object"),
        ("grant_types: []\n", "grant_types", "line 1: is not a known field"),
    ],
)
def test_what_is_not_a_policy_is_refused(wrong: str, field: str, message: str) -> None:
    assert errors_of(wrong) == [(field, message)]


def test_an_error_does_not_repeat_a_password_hash() -> None:
    assert "hunter2" not in str(errors_of("users:\n- username: bob\n  passwordHash: hunter2\n"))


def test_json_has_the_same_fields() -> None:
    assert text.parse_json(json.dumps(yaml.safe_load(FILE))) == text.parse(FILE)
    with pytest.raises(InvalidInput, match="colour: is not a known field"):
        text.parse_json('{"colour": "red"}')
    with pytest.raises(InvalidInput, match="must be a JSON object"):
        text.parse_json("null")
    with pytest.raises(InvalidInput, match="line 1: is not valid JSON"):
        text.parse_json("{")
    with pytest.raises(InvalidInput, match="users is given twice"):
        text.parse_json('{"users": [], "users": []}')


def test_the_schema_accepts_the_file_and_refuses_unknown_fields_and_permissions() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load(FILE), schema)
    for wrong in (
        "colour: red",
        "users: [{username: bob, colour: red}]",
        "users: [{username: bob, permissions: [reed a]}]",
        "users: [{}]",
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(yaml.safe_load(wrong), schema)


_levels = st.text(st.characters(exclude_characters="/+#\0", exclude_categories=["Cs"]), min_size=1, max_size=5)
_topics = st.lists(_levels.filter(lambda level: "%" not in level), min_size=1, max_size=3).map("/".join)
_mqtt = st.builds(
    Permission,
    st.just(Context.MQTT),
    st.sampled_from(Operation),
    _topics.filter(lambda topic: not topic[0].isspace() and not topic.startswith("$share")),
    st.sampled_from(Effect),
)
_descriptions = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
_role_names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.\-]{2,20}", fullmatch=True)
# Any name that a user may have, and words and signs that mean something in YAML.
_usernames = st.sampled_from(
    ["true", "No", "~", "null", "<<", "=", "- a", "a: b", "#x", "0x1F", "1_000", "12:30", "&a"]
)
_usernames |= st.text(st.characters(exclude_categories=["Cc", "Cs", "Cn"]), min_size=1, max_size=20).filter(
    lambda name: name not in {".", ".."}
)
_permissions = st.lists(_mqtt).map(tuple)
documents = st.builds(
    PolicyDocument,
    roles=st.lists(
        st.builds(
            PolicyRole,
            name=_role_names,
            description=_descriptions,
            permissions=st.lists(_mqtt).map(tuple),
        ),
        unique_by=lambda role: role.name,
        max_size=3,
    ).map(tuple),
    users=st.lists(
        st.builds(
            PolicyUser,
            username=_usernames,
            enabled=st.booleans(),
            grant_types=st.frozensets(st.sampled_from(GrantType)),
            permissions=_permissions,
            client_ids=st.lists(st.sampled_from(["%u", "%u-*", "a b", "*"])).map(tuple),
        ),
        unique_by=lambda user: user.username,
        max_size=3,
    ).map(tuple),
)


@settings(max_examples=100)
@given(documents)
def test_every_document_survives_its_text(document: PolicyDocument) -> None:
    once = written(document)
    assert written(text.parse(once)) == once
    assert {user.name: user for user in text.parse(once).users} == {user.name: user for user in document.users}
    assert {role.name: role for role in text.parse(once).roles} == {role.name: role for role in document.roles}

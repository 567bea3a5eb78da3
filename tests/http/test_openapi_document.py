"""What users of generated clients see of the OpenAPI document: names, times and examples."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import jsonschema_rs
import pytest

from authsvc.api import examples
from authsvc.api.schemas import Body, View
from tests.http.description import DESCRIPTION, OPERATIONS

if TYPE_CHECKING:
    from pydantic import BaseModel

    from tests.http.callers import Caller

SCHEMAS: dict[str, dict[str, Any]] = DESCRIPTION["components"]["schemas"]
VERBS = {
    *(
        "add",
        "change",
        "confirm",
        "create",
        "delete",
        "deny",
        "disconnect",
        "end",
        "get",
        "grant",
        "import",
        "issue",
        "list",
        "lock",
        "login",
    ),
    *("register", "renew", "revoke", "test", "unlock", "update", "upload"),
}
# Objects with the values before and after a change.
NO_TIMES = {(view, field) for view in ("EventView", "DifferenceView") for field in ("before", "after")}
TIME = re.compile("(At|After|Before|Since|Until|Seen)$|^(at|after|before|time|notBefore|notAfter)$")


def contents() -> list[Any]:
    """Return the bodies and successful answers of all operations."""
    found = []
    for (method, path), operation in OPERATIONS.items():
        messages = {"request": operation.get("requestBody", {}), **operation["responses"]}
        for name, message in messages.items():
            for kind, content in message.get("content", {}).items():
                if name == "request" or name.startswith("2"):
                    found.append(pytest.param(kind, content, id=f"{method} {path} {name}"))
    return found


@pytest.mark.parametrize(("kind", "content"), contents())
def test_examples_are_valid_against_their_schema(kind: str, content: dict[str, Any]) -> None:
    assert "example" in content
    if kind == "application/json":
        schema = {**content["schema"], "components": DESCRIPTION["components"]}
        jsonschema_rs.validator_for(schema, validate_formats=True).validate(content["example"])
    else:
        first_lines = {"text/csv": "username,roles,csrFingerprint", "application/yaml": "users:"}
        assert content["example"].splitlines()[0] == first_lines[kind]


def test_every_operation_with_content_has_an_example() -> None:
    assert len(contents()) > 60


def test_examples_without_a_user_of_that_name_are_accepted(alice: Caller) -> None:
    for path in ("roles", "users", "tokens", "client-registry/enrolment-keys", "client-registry/unlock"):
        content = OPERATIONS["POST", f"/api/{path}"]["requestBody"]["content"]["application/json"]
        answer = alice.post(f"/api/{path}", content["example"])
        assert answer.status_code < 300, answer.text


def test_the_document_is_the_same_each_time() -> None:
    before = repr(DESCRIPTION)
    assert repr(examples.add_to(DESCRIPTION)) == before


def test_operation_ids_are_readable() -> None:
    for operation in OPERATIONS.values():
        assert re.fullmatch("[a-z]+(_[a-z]+)*", operation["operationId"])
        assert operation["operationId"].partition("_")[0] in VERBS


def test_every_time_has_the_format_date_time() -> None:
    fields = {
        (name, field): each for name, schema in SCHEMAS.items() for field, each in schema.get("properties", {}).items()
    }
    parameters = {
        (operation["operationId"], each["name"]): each["schema"]
        for operation in OPERATIONS.values()
        for each in operation.get("parameters", ())
    }
    times = {key: schema for key, schema in {**fields, **parameters}.items() if TIME.search(key[1])}
    assert {key for key, schema in times.items() if "'format': 'date-time'" not in repr(schema)} == NO_TIMES


def test_one_word_is_used_for_one_thing() -> None:
    synonyms = {"created", "updated", "expires", "expiry", "validUntil", "revoked", "lastUsed", "lastSeenAt"}
    synonyms |= {"user", "userName", "clientid", "client", "ip", "remedy", "remedyNote", "size", "limit", "offset"}
    names = {field for schema in SCHEMAS.values() for field in schema.get("properties", {})}
    names |= {each["name"] for operation in OPERATIONS.values() for each in operation.get("parameters", ())}
    # The number of users or preauthorizations that a request created.
    assert names & synonyms <= {"created"}
    with_number = {name for name, schema in SCHEMAS.items() if "created" in schema.get("properties", {})}
    assert with_number == {"BatchView", "PlanCounts", "UploadView"}


def test_each_schema_has_a_name_of_its_own() -> None:
    """The document names schemas by their class, so the second of one name would replace the first."""
    classes = list(_subclasses(View)) + list(_subclasses(Body))
    names = Counter(each.__name__ for each in classes if each.__module__.startswith(("authsvc.", "registry.")))
    assert [name for name, number in names.items() if number > 1] == []


def _subclasses(kind: type[BaseModel]) -> set[type[BaseModel]]:
    return {kind}.union(*map(_subclasses, kind.__subclasses__()))

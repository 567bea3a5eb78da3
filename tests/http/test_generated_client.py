"""A client that openapi-python-client generates from the description, used against a service that runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.actors import ADMIN_PASSWORD, BOBS_PASSWORD
from tests.http.description import DESCRIPTION, OPERATIONS
from tests.service import Service, permission

if TYPE_CHECKING:
    from collections.abc import Iterator

_PACKAGE = "generated_authsvc_client"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that runs."""
    with Service(tmp_path_factory.mktemp("service"), {"AUTHSVC_ADMIN_PASSWORD": ADMIN_PASSWORD}) as running:
        yield running


@pytest.fixture(scope="module")
def generated(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of the generated package, which can be imported."""
    directory = tmp_path_factory.mktemp("generated")
    description = directory / "openapi.json"
    description.write_text(service.call("GET", "/api/openapi.json").text)
    config = directory / "config.json"  # YAML is a superset
    config.write_text(json.dumps({"package_name_override": _PACKAGE, "post_hooks": []}))
    command = [
        str(Path(sys.executable).parent / "openapi-python-client"),
        "generate",
        f"--path={description}",
        f"--config={config}",
        "--meta=none",
        f"--output-path={directory / _PACKAGE}",
    ]
    made = subprocess.run(command, capture_output=True, text=True, check=False, cwd=directory, timeout=120)
    assert made.returncode == 0, made.stdout + made.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(directory)
        yield _PACKAGE
        for name in [name for name in sys.modules if name.partition(".")[0] == _PACKAGE]:
            del sys.modules[name]


class Generated:
    """The generated client, signed in as the administrator."""

    def __init__(self, package: str, service: Service) -> None:
        self._package = package
        answer = service.call("POST", "/api/login", json={"username": "admin", "password": ADMIN_PASSWORD})
        client = import_module(f"{package}.client").AuthenticatedClient
        self._client = client(base_url=service.url, token=answer.json()["token"], raise_on_unexpected_status=True)

    def close(self) -> None:
        """Close its connections."""
        self._client.get_httpx_client().close()

    def call(self, operation: str, *arguments: str, **options: Any) -> Any:
        """Call one operation, named by its module, and return the whole answer."""
        module = import_module(f"{self._package}.api.{operation}")
        return module.sync_detailed(*arguments, client=self._client, **options)

    def body(self, model: str, **fields: Any) -> Any:
        """Return a body made with only these fields, named as in JSON; the constructor adds any defaults."""
        made = getattr(import_module(f"{self._package}.models"), model)
        attributes = [re.sub("([A-Z])", r"_\1", name).lower() for name in fields]
        return made(**{name: getattr(made.from_dict(fields), name) for name in attributes})


@pytest.fixture
def client(generated: str, service: Service) -> Iterator[Generated]:
    """The generated client, disconnected after the test."""
    client = Generated(generated, service)
    yield client
    client.close()


def _bodies(method: str) -> dict[str, dict[str, Any]]:
    """Return the schemas of the bodies that operations of this method take, by path."""
    found = {}
    for path, operations in DESCRIPTION["paths"].items():
        for content in operations.get(method, {}).get("requestBody", {}).get("content", {}).values():
            name = content["schema"]["$ref"].rpartition("/")[2]
            found[path] = DESCRIPTION["components"]["schemas"][name]
    return found


def test_no_patch_body_has_a_default_or_a_required_field() -> None:
    bodies = _bodies("patch")
    assert {"/api/users/{username}", "/api/roles/{name}"} <= bodies.keys()
    for path, schema in bodies.items():
        assert "required" not in schema, path
        assert not [name for name, field in schema["properties"].items() if "default" in field], path


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("enabled", True),
        ("grantTypes", ["token"]),
        ("roles", []),
        ("permissions", []),
        ("password", "quite another secret"),
    ],
)
def test_a_generated_client_changes_one_field_of_a_user_and_nothing_else(
    client: Generated, service: Service, field: str, value: Any
) -> None:
    username = f"press-{field}"
    rules = [permission("write devices/%u/#"), permission("deny read secret/#")]
    grants = ["certificate", "password", "token"]
    service.create_user(
        username, BOBS_PASSWORD, enabled=False, grantTypes=grants, roles=["minimum-access"], permissions=rules
    )
    before = service.call("GET", f"/api/users/{username}").json()
    body = client.body("UserPatchBody", **{field: value})
    client.call("users.update_user", username, body=body)
    after = service.call("GET", f"/api/users/{username}").json()
    differing = {name for name in before if before[name] != after[name]} - {"updatedAt"}
    assert differing == ({field} - {"password"})
    change = {"enabled": True, "grantTypes": ["password"]}
    service.call("PATCH", f"/api/users/{username}", json=change).raise_for_status()
    password = {"username": username, "password": BOBS_PASSWORD}
    expected = 403 if field == "password" else 200
    assert service.call("POST", "/auth/user", json=password).status_code == expected


def test_a_generated_client_changes_a_roles_description_and_keeps_its_permissions(
    client: Generated, service: Service
) -> None:
    rules = [permission("write lines/+"), permission("deny read secret/#")]
    made = service.call("POST", "/api/roles", json={"name": "line", "permissions": rules, "description": "old"})
    assert made.status_code == 201, made.text
    body = client.body("RoleChangeBody", description="new")
    client.call("roles.update_role", "line", body=body)
    stored = service.call("GET", "/api/roles/line").json()
    assert (stored["description"], stored["permissions"]) == ("new", rules)


def test_a_generated_client_can_send_the_etag_that_it_read(client: Generated, service: Service) -> None:
    service.create_user("etta", BOBS_PASSWORD)
    tag = client.call("users.get_user", "etta").headers["ETag"]
    change, body = "users.update_user", client.body("UserPatchBody", enabled=False)
    assert client.call(change, "etta", body=body, if_match=tag).status_code == 200
    assert client.call(change, "etta", body=body, if_match=tag).status_code == 412


def test_names_of_the_generated_client_are_those_of_a_client_written_by_hand(client: Generated, generated: str) -> None:
    for operation in (
        *("session.login", "session.get_me", "users.list_users", "users.create_user", "users.get_user"),
        *("users.update_user", "users.delete_user", "roles.update_role", "tokens.create_token", "clients.list_clients"),
        *("certificates.issue_certificate", "certificates.revoke_certificate", "audit.list_audit_events"),
        *(
            "client_registry.unlock_registry",
            "client_registry.grant_registration",
            "enrolment_keys.revoke_enrolment_key",
        ),
    ):
        assert import_module(f"{generated}.api.{operation}").sync_detailed
    found = client.call("users.list_users", search="admin", sort="-createdAt", enabled=True).parsed
    (admin,) = found.items
    assert (admin.username, admin.enabled) == ("admin", True)
    assert isinstance(admin.created_at, datetime)
    assert admin.last_seen is None or isinstance(admin.last_seen, datetime)  # a token use is stored within 5 s


def test_no_generated_name_is_a_number_or_repeats_its_path(generated: str) -> None:
    package = Path(import_module(generated).__file__ or "").parent
    operations = [path for path in (package / "api").glob("*/*.py") if path.stem != "__init__"]
    described = {operation["operationId"] for operation in OPERATIONS.values()}
    # The generator knows no bodies of CSV.
    assert described - {path.stem for path in operations} == {"upload_preauthorizations"}
    for path in operations:
        assert not re.search("_(get|post|patch|delete)$", path.stem), path
    assert not [path for path in (package / "models").glob("*.py") if "VALUE_0" in path.read_text()]

"""schemathesis sends valid and invalid requests to each operation of the API description.

All built-in checks of schemathesis run except two. `positive_data_acceptance` requires that every body is accepted that
the schema allows, but no schema can tell which roles exist, what the password policy is or which topic filters are
valid.
`allow_header_conformance` does not see that `.../registrations/grant` also fits `.../registrations/{id}`.
The requests cannot remove their own permissions: `admin` and Alice are never the named user, no other user
holds rights, and ids of tokens are random.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from schemathesis.config import SchemathesisConfig
from schemathesis.core.parameters import ParameterLocation
from schemathesis.specs.openapi.checks import allow_header_conformance, positive_data_acceptance

from tests.http.description import DESCRIPTION
from tests.service import permission

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from flask_openapi3.openapi import OpenAPI

    from tests.http.callers import Caller

pytestmark = pytest.mark.slow
pytest_plugins = ["schemathesis.pytest.plugin"]

# The users and roles that path parameters name; several, since the operations called DELETE work.
_KNOWN = 3


class _Environment:
    """The WSGI application that schemathesis calls; each test sets its own service."""

    app: WSGIApplication

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self.app(environ, start_response)


# Refusals: an If-Match of another version (412), a too large body (413), a locked registry (423).
_REFUSALS = ["400", "401", "403", "404", "405", "409", "412", "413", "415", "423", "429"]
_CONFIG = {"checks": {"negative_data_rejection": {"expected-statuses": _REFUSALS}}}

schema = schemathesis.openapi.from_dict(DESCRIPTION, config=SchemathesisConfig.from_dict(_CONFIG))
schema.location = "/api/openapi.json"
schema.app = _stage = _Environment()


@schema.hook("map_case")
def _use_existing_names(_context: schemathesis.HookContext, case: schemathesis.Case[Any]) -> schemathesis.Case[Any]:
    """Replace valid names in paths by those of existing users and roles."""
    if case.meta and not case.meta.is_negative_at(ParameterLocation.PATH):
        number = len(str(case.path_parameters)) % _KNOWN
        for name in {"username", "name"} & set(case.path_parameters):
            case.path_parameters[name] = f"{name}-{number}"
    return case


@pytest.fixture(autouse=True)
def _a_populated_service(app: OpenAPI, alice: Caller) -> None:
    for number in range(_KNOWN):
        alice.creates_user(f"username-{number}", permissions=[permission("write devices/%u/#")])
        assert alice.post("/api/roles", {"name": f"name-{number}"}).status_code == 201
    _stage.app = app


@schema.parametrize()
@hypothesis_settings(
    max_examples=20,
    deadline=None,
    # All examples of one operation share one database, as requests to a real service do.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_operation_conforms_to_its_description(case: schemathesis.Case[Any], alice: Caller) -> None:
    senseless = [positive_data_acceptance, allow_header_conformance]
    case.call_and_validate(headers=alice.headers, excluded_checks=senseless)

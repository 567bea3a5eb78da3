"""The policy file over REST: `GET /api/export` and `POST /api/apply`."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from flask import Response, request
from flask_openapi3.models import RawModel
from pydantic import Field

from authsvc.accounts import client_id_warnings
from authsvc.api.policy.plans import PlanQuery, PlanView, permit, render_plan
from authsvc.api.schemas import WarningView, noun
from authsvc.errors import invalid
from authsvc.policy_file import text
from authsvc.policy_file.document import SCHEMA_PATH
from authsvc.policy_file.plan import Action, Kind, PlanOptions
from authsvc.record_json import json_value
from authsvc.web.request_context import actor
from registry import policy_file

YAML = "application/yaml"
blueprint = noun("policy", "All users, roles and preauthorizations as one file")


class PolicyUpload(RawModel):
    mimetypes = [YAML, "application/json"]  # noqa: RUF012 - as in the base class


class ApplyQuery(PlanQuery):
    prune: bool = Field(False, description="also remove what the file does not name, of the lists that it has")


class ApplyView(PlanView):
    """What was changed, or with `dryRun` would be, with warnings about new users."""

    warnings: list[WarningView]


@blueprint.get(
    "/export", responses={200: {"description": "the policy file", "content": {YAML: {"schema": {"type": "object"}}}}}
)
def get_policy_file() -> Response:
    """Return users, roles and preauthorizations as YAML, without password hashes and secrets."""
    document = policy_file.read_document()
    parts = text.write(document, request.host_url.rstrip("/") + SCHEMA_PATH)
    response = Response((part.encode() for part in parts), content_type=YAML)
    response.headers["Content-Disposition"] = 'attachment; filename="policy.yaml"'
    response.headers["Cache-Control"] = "no-store"
    return response


@blueprint.post("/apply", responses={200: ApplyView})
def update_policy(query: ApplyQuery, raw: PolicyUpload) -> dict[str, Any]:
    """Make users, roles and preauthorizations what the file says: all changes or none, in one transaction.

    For each change the caller needs the permission to make it at its own path, such as `http write /api/users/bob`.
    """
    content = raw.get_data()
    try:
        given = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise invalid("body", "is not UTF-8 text") from None
    document = text.parse_json(given) if raw.is_json else text.parse(given)
    author = replace(actor(), policy_file=f"sha256:{hashlib.sha256(content).hexdigest()}")
    change = policy_file.make_plan if query.dry_run else policy_file.apply
    plan = change(author, document, PlanOptions(prune=query.prune), permit)
    new = (each.name for each in plan.of(Kind.USER, Action.CREATE))
    return render_plan(plan, dry_run=query.dry_run) | {"warnings": json_value(client_id_warnings.of_new_names(new))}

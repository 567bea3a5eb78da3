"""Form fields, validated by the API's schemas so that a field has the same rules in a form and in a REST body."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from flask import request
from pydantic import BaseModel, ValidationError

from authsvc.admin.pages import authorize_as, page_blueprint, render
from authsvc.api.schemas import PermissionBody, PermissionView
from authsvc.errors import InvalidInput, invalid

if TYPE_CHECKING:
    from flask import Response
    from werkzeug.datastructures import MultiDict


blueprint = page_blueprint("forms", __name__)
Schema = TypeVar("Schema", bound=BaseModel)
Rows = list[dict[str, str]]

# `int()` raises ValueError for strings beyond Python's limit of 4,300 digits.
_MAX_DIGITS = 18
_COLUMNS = ("context", "operation", "resource", "effect")


def validated(schema: type[Schema], **fields: Any) -> Schema:
    """Return the fields, named as in the API, as an instance of this schema; `InvalidInput` names the wrong fields."""
    try:
        return schema.model_validate(fields)
    except ValidationError as error:
        raise InvalidInput.of_validation(error) from None


def validated_query(schema: type[Schema]) -> tuple[Schema, dict[str, str]]:
    """Return the non-empty query parameters as an instance of this schema, and as text without the page number."""
    parameters = {name: value for name, value in request.args.items() if value}
    query = validated(schema, **parameters)
    parameters.pop("page", None)
    return query, parameters


def parse_integer(text: str) -> int | str | None:
    """Return the int, None if empty, otherwise the raw text so that validation reports the error."""
    text = text.strip()
    return int(text) if text.isdecimal() and len(text) <= _MAX_DIGITS else text or None


def expected_versions(version: str) -> frozenset[str]:
    """Return the version that a form was rendered from, for `users.change` to compare; `InvalidInput` if missing."""
    if not version:
        raise invalid("", "this form is out of date; reload the page and try again")
    return frozenset({version})


def permission_rows(form: MultiDict[str, str]) -> Rows:
    """Return the submitted rows of a permission editor, without rows that have an empty resource."""
    columns = [form.getlist(f"permission.{name}") for name in _COLUMNS]
    rows = [dict(zip(_COLUMNS, row, strict=True)) for row in zip(*columns, strict=False)]
    return [row for row in rows if row["resource"].strip()]


def non_empty_lines(form: MultiDict[str, str], name: str) -> list[str]:
    return [line for line in form.get(name, "").splitlines() if line.strip()]


@blueprint.get("/permission-row")
@authorize_as("GET", "/api/me")
def permission_row() -> Response:
    """Render one empty row for a permission editor."""
    return render("admin/permission_row.html")


@blueprint.get("/resource")
@authorize_as("GET", "/api/me")
def check_resource() -> Response:
    """Explain the topic filter or path that is being typed, or report what is wrong with it."""
    row = {name: request.args.get(f"permission.{name}", "") for name in _COLUMNS}
    if not row["resource"]:
        return render("admin/resource.html", permission=None, wrong=None)
    try:
        permission = validated(PermissionBody, **row).permission()
    except InvalidInput as error:
        return render("admin/resource.html", permission=None, wrong=error.errors[0].message)
    return render("admin/resource.html", permission=PermissionView.of(permission), wrong=None)

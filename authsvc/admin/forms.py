"""What forms bring back: read by the API's own shapes, so that a field has one rule however it arrives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from flask import request
from pydantic import BaseModel, ValidationError

from authsvc.admin.pages import pages, render, stands_for
from authsvc.api.schemas import PermissionBody, PermissionView
from authsvc.errors import InvalidInput, invalid
from authsvc.web import problem

if TYPE_CHECKING:
    from flask import Response
    from werkzeug.datastructures import MultiDict


blueprint = pages("forms", __name__)
Shape = TypeVar("Shape", bound=BaseModel)
Rows = list[dict[str, str]]

# Beyond, Python itself refuses to read a number.
_MAX_DIGITS = 18
_COLUMNS = ("context", "operation", "resource", "effect")


def submitted(shape: type[Shape], **fields: Any) -> Shape:
    """Return the fields, named as in the API, as one of its bodies; `InvalidInput` by field where they do not fit."""
    try:
        return shape.model_validate(fields)
    except ValidationError as error:
        raise problem.invalid_input(error) from None


def whole_number(typed: str) -> int | str | None:
    """Return a number that was typed, None for nothing, and what is no number as it is, for the shape to refuse."""
    typed = typed.strip()
    return int(typed) if typed.isdecimal() and len(typed) <= _MAX_DIGITS else typed or None


def as_of(version: str) -> frozenset[str]:
    """Return the version that a form shows, for a change to expect; `InvalidInput` when the form does not say."""
    if not version:
        raise invalid("", "this page is out of date: reload it and try again")
    return frozenset({version})


def permission_rows(form: MultiDict[str, str]) -> Rows:
    """Return the rows of a permission editor as they were typed, without those that were left empty."""
    columns = [form.getlist(f"permission.{name}") for name in _COLUMNS]
    rows = [dict(zip(_COLUMNS, row, strict=True)) for row in zip(*columns, strict=False)]
    return [row for row in rows if row["resource"].strip()]


def lines(form: MultiDict[str, str], name: str) -> list[str]:
    """Return the lines of a text area as they were typed, without empty ones."""
    return [line for line in form.get(name, "").splitlines() if line.strip()]


@blueprint.get("/permission-row")
@stands_for("GET", "/api/me")
def permission_row() -> Response:
    """Draw one more row for a permission editor."""
    return render("admin/permission_row.html")


@blueprint.get("/resource")
@stands_for("GET", "/api/me")
def check_resource() -> Response:
    """Say, while it is being typed, what a topic filter reaches or what is wrong with it."""
    row = dict(zip(_COLUMNS, (request.args.get(f"permission.{name}", "") for name in _COLUMNS), strict=True))
    if not row["resource"]:
        return render("admin/resource.html", permission=None, wrong=None)
    try:
        permission = submitted(PermissionBody, **row).permission()
    except InvalidInput as error:
        return render("admin/resource.html", permission=None, wrong=error.errors[0].message)
    return render("admin/resource.html", permission=PermissionView.of(permission), wrong=None)

"""Schemas that several resources share: JSON in camelCase; no unknown field and no coerced value in a request."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, Self, TypeVar, get_args

from flask import request
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel
from werkzeug.http import parse_etags, quote_etag

from authsvc.credentials import usernames
from authsvc.errors import InvalidInput
from authsvc.policy import allowed_client_ids
from authsvc.policy.permissions import Permission
from authsvc.record_json import checked_by, json_fields, json_value, rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flask_openapi3.types import ResponseDict

    from authsvc.storage.paging import Page


_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d", re.ASCII)
_FIRST_YEAR, _LAST_YEAR = 1970, 9998


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not contain a NUL character")
    return text


def _check_is_rfc3339(value: Any) -> Any:
    if not (isinstance(value, str) and _RFC3339.match(value)):
        raise ValueError("must be an RFC 3339 time, such as 2026-11-20T08:00:00Z")
    return value


def _check_year(moment: datetime) -> datetime:
    if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        raise ValueError(f"must be from {_FIRST_YEAR} to {_LAST_YEAR}")
    return moment


def sort_schema(sorts: Any) -> WithJsonSchema:
    """Return the schema of a Literal: a pattern, because generated clients find no name for `-username`."""
    names = dict.fromkeys(name.removeprefix("-") for name in get_args(sorts))
    return WithJsonSchema({"type": "string", "pattern": f"^-?({'|'.join(names)})$"})


def _in_utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


Text = Annotated[str, AfterValidator(_no_nul)]
Moment = Annotated[
    datetime,
    PlainSerializer(rfc3339, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-11-20T08:00:00Z"]}),
]
Time = Annotated[
    AwareDatetime,
    Field(strict=False, examples=["2026-11-20T08:00:00Z"]),
    BeforeValidator(_check_is_rfc3339),
    AfterValidator(_check_year),
]
"""A time in a body."""
TimeInQuery = Annotated[
    datetime,
    Field(examples=["2026-11-20T08:00:00Z"]),
    BeforeValidator(_check_is_rfc3339),
    AfterValidator(_check_year),
    AfterValidator(_in_utc),
]
"""A time in a query; without an offset it is in UTC, because browsers' forms send none."""
Username = Annotated[
    str,
    checked_by(usernames.validate_username),
    Field(
        json_schema_extra={
            "minLength": 1,
            "maxLength": usernames.MAX_USERNAME,
            "pattern": f"^[^{usernames.UNUSABLE}]+$",
        },
        examples=["press-7"],
    ),
]
RoleName = Annotated[
    str,
    checked_by(usernames.validate_role_name),
    Field(json_schema_extra={"pattern": f"^{usernames.ROLE_NAME.pattern}$"}, examples=["line-operator"]),
]
Answer = tuple[dict[str, Any], int, dict[str, str]]
"""JSON, status and headers of an HTTP response."""

ClientIdPattern = Annotated[
    str,
    checked_by(allowed_client_ids.validate_client_id),
    Field(json_schema_extra={"minLength": 1, "maxLength": allowed_client_ids.MAX_LENGTH}, examples=["%u", "%u:*"]),
]
ClientIds = Annotated[
    list[ClientIdPattern],
    Field(
        max_length=allowed_client_ids.MAX_PATTERNS,
        description=(
            "the client ids with which the user may log in to the broker: %u is the username, * any characters. "
            "A client id must match a pattern of the user or of one of its roles; without any pattern, all are allowed"
        ),
    ),
]
GrantTypeName = Literal["password", "certificate", "token"]


class Body(BaseModel):
    """A request body: exact types, known fields."""

    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel, allow_inf_nan=False)

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, **_options: Any) -> Self:
        """Validate a value as it is; pydantic would parse a JSON string that contains an object."""
        return cls.model_validate(json_data)

    def given(self, changes: type[Any]) -> dict[str, Any]:
        """Return the fields that the request has and that are keys of `changes`, a TypedDict."""
        given = {name: getattr(self, name) for name in self.model_fields_set if name in changes.__annotations__}
        if "permissions" in given:
            given["permissions"] = permissions_from(given["permissions"])
        return given


def unchanged(description: str | None = None, max_length: int | None = None) -> Any:
    """Return a field of a PATCH body: absent means unchanged.

    The OpenAPI description shows no default, because generated clients send defaults. `model_fields_set` tells which
    fields were sent.
    """
    return Field(default_factory=lambda: None, description=description, max_length=max_length)


class OptionalBody(Body):
    """A request body that may be absent; then every field has its default."""

    model_config = ConfigDict(json_schema_extra={}, openapi_extra={"required": False})  # type: ignore[typeddict-unknown-key]

    @model_validator(mode="before")
    @classmethod
    def nothing_is_an_empty_object(cls, given: Any) -> Any:
        """Read an absent body as `{}`; a body that is not JSON stays an error."""
        return {} if given is None and not request.get_data() else given


class Query(BaseModel):
    """Query parameters: text that pydantic converts to the right type, known names."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel)


class IfMatch(BaseModel):
    """The condition of a change: the version that the caller has read."""

    if_match: str = Field(
        default_factory=str,
        alias="If-Match",
        description="the ETag that was read; if the stored version differs, nothing changes and the status is 412",
    )

    def versions(self) -> frozenset[str] | None:
        """Return the versions of which the stored one must be one (RFC 9110, 13.1.1); None for any."""
        if "if_match" not in self.model_fields_set:
            return None
        tags = parse_etags(self.if_match)
        return None if tags.star_tag else frozenset(tags.as_set())


class View(BaseModel):
    """A JSON response."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    @classmethod
    def of(cls, record: Any, **others: Any) -> Self:
        """Return the view of a record; `others` are fields that the record lacks, or that replace its own."""
        given = {to_camel(name): json_value(value) for name, value in others.items()}
        return cls.model_validate(json_fields(record) | given)


Item = TypeVar("Item", bound=View)


class PageView(View, Generic[Item]):
    """One page of a list."""

    items: list[Item]
    page: int
    per_page: int
    total: int


WITH_ETAG = ConfigDict(
    openapi_extra={"headers": {"ETag": {"description": "its version, for If-Match", "schema": {"type": "string"}}}},  # type: ignore[typeddict-unknown-key]
)
"""Config of a view that `tagged` returns."""


class PermissionBody(Body):
    """A permission: allows, or with effect `deny` denies, the topics or paths that `resource` covers."""

    context: Literal["mqtt", "http"] = Field(description="topics on the broker, or paths of this service")
    operation: Literal["read", "write", "readWrite"]
    resource: Text = Field(
        min_length=1,
        max_length=65_535,
        description="a topic filter or path filter; + and # are wildcards, %u and %c the username and client id",
        examples=["devices/%u/#"],
    )
    effect: Literal["allow", "deny"] = "allow"

    def permission(self) -> Permission:
        """Return the rule it spells; `InvalidInput` for `resource` when it is no topic filter."""
        return Permission.from_fields(self.context, self.operation, self.resource, self.effect)


class PermissionView(View):
    """A permission as stored."""

    context: Literal["mqtt", "http"]
    operation: Literal["read", "write", "readWrite"]
    resource: str
    effect: Literal["allow", "deny"]


class WarningView(View):
    """A weakness that an administrator should remove; `code` is stable."""

    code: str
    message: str


class IdPath(BaseModel):
    """The id in a path."""

    id: Text = Field(max_length=64)


class PageQuery(Query):
    """One page of a list."""

    page: int = Field(1, ge=1, le=1_000_000)
    per_page: int = Field(50, ge=1, le=1000)


class SearchQuery(PageQuery):
    """One page of a list, and a search text."""

    search: Text = Field("", max_length=200)


class FieldProblem(BaseModel):
    """An invalid field."""

    field: str
    message: str


class Problem(BaseModel):
    """An error (RFC 9457); `code` is stable, `errors` lists the invalid fields."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[FieldProblem] = []


def permissions_from(bodies: Iterable[PermissionBody]) -> tuple[Permission, ...]:
    """Return the permissions; an error names the position of an invalid one, as in `permissions[2].resource`."""
    permissions = []
    for position, body in enumerate(bodies):
        try:
            permissions.append(body.permission())
        except InvalidInput as error:
            raise error.within(f"permissions[{position}]") from None
    return tuple(permissions)


def render(view: View) -> dict[str, Any]:
    """Return the JSON of a view."""
    return view.model_dump(mode="json", by_alias=True)


def tagged(view: View, version: str) -> Answer:
    """Return a response with an ETag."""
    return render(view), 200, {"ETag": quote_etag(version)}


def render_page(page: Page[Any], views: Iterable[View]) -> dict[str, Any]:
    """Return the JSON of a page."""
    items = [render(view) for view in views]
    return {"items": items, "page": page.page, "perPage": page.per_page, "total": page.total}


def failures(*statuses: int) -> ResponseDict:
    """Return the OpenAPI description of these error statuses."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"content": content} for status in statuses}


def _operation_id(*, name: str, path: str, method: str) -> str:  # noqa: ARG001 - flask-openapi3 passes all three
    return name


def noun(name: str, description: str) -> APIBlueprint:
    """Return a blueprint below `/api`; OpenAPI shows its operations with authentication and the common errors.

    The id of an operation is the name of its view, so that a generated client has functions such as `list_users`.
    """
    return APIBlueprint(
        name,
        name,
        url_prefix="/api",
        operation_id_callback=_operation_id,
        abp_tags=[Tag(name=name, description=description)],
        abp_security=[{"token": []}, {"tokenInAddress": []}, {"password": []}],
        abp_responses=failures(400, 401, 403, 404, 409, 412, 413, 429, 503),
    )

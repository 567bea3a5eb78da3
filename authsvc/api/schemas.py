"""The shapes that nouns share: camelCase outside, nothing unknown let in, no value bent to fit."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from flask import request
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, model_validator
from pydantic.alias_generators import to_camel
from werkzeug.http import parse_etags, quote_etag

from authsvc.credentials import usernames
from authsvc.errors import InvalidInput
from authsvc.policy import allowed_client_ids
from authsvc.policy.permissions import Permission

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from flask_openapi3.types import ResponseDict

    from authsvc.accounts.client_id_warnings import PolicyWarning
    from authsvc.storage.paging import Page


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not contain a NUL character")
    return text


def _checked_by(rule: Callable[[str], str]) -> AfterValidator:
    """Let a rule of the domain speak, in its own words, where a field is read."""

    def check(text: str) -> str:
        try:
            return rule(text)
        except InvalidInput as error:
            raise ValueError(error.errors[0].message) from None

    return AfterValidator(check)


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


Text = Annotated[str, AfterValidator(_no_nul)]
Moment = Annotated[datetime, PlainSerializer(_rfc3339, return_type=str)]
Username = Annotated[
    str,
    _checked_by(usernames.validate_username),
    Field(json_schema_extra={"pattern": f"^{usernames.USERNAME.pattern}$"}, examples=["press-7"]),
]
RoleName = Annotated[
    str,
    _checked_by(usernames.validate_role_name),
    Field(json_schema_extra={"pattern": f"^{usernames.ROLE_NAME.pattern}$"}, examples=["line-operator"]),
]
Answer = tuple[dict[str, Any], int, dict[str, str]]
"""What Flask turns into an answer: JSON, status and headers."""

ClientIdPattern = Annotated[
    str,
    _checked_by(allowed_client_ids.validate_client_id),
    Field(json_schema_extra={"minLength": 1, "maxLength": allowed_client_ids.MAX_LENGTH}, examples=["%u", "%u:*"]),
]
ClientIds = Annotated[
    list[ClientIdPattern],
    Field(
        max_length=allowed_client_ids.MAX_PATTERNS,
        description=(
            "the client ids with which the user may log in to the broker: %u is the username, * any characters. "
            "A user may use what matches one of its own patterns or of those of its roles; without any, every client id"
        ),
    ),
]
GrantTypeName = Literal["password", "certificate", "token"]


class Body(BaseModel):
    """What a caller sends: exact types, known fields."""

    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel, allow_inf_nan=False)

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, **_options: Any) -> Self:
        """Refuse an object within a text, into which the library would look."""
        return cls.model_validate(json_data)


def unchanged(description: str | None = None, max_length: int | None = None) -> Any:
    """Return a field of a PATCH body: absent means unchanged.

    It has no default in the description, because generated clients send defaults; the body knows by
    `model_fields_set` which fields were sent.
    """
    return Field(default_factory=lambda: None, description=description, max_length=max_length)


class OptionalBody(Body):
    """What a caller may send or leave out whole; then every field has its default."""

    model_config = ConfigDict(json_schema_extra={}, openapi_extra={"required": False})  # type: ignore[typeddict-unknown-key]

    @model_validator(mode="before")
    @classmethod
    def nothing_is_an_empty_object(cls, given: Any) -> Any:
        """Take no body at all for `{}`; a body that is not JSON stays an error."""
        return {} if given is None and not request.get_data() else given


class Query(BaseModel):
    """What stands behind the `?`: text that must read as the right type, known names."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel)


class IfMatch(BaseModel):
    """Change only what the caller has seen."""

    if_match: str = Field(
        default_factory=str,
        alias="If-Match",
        description="the ETag that was read: if it was changed since, nothing is done and the answer is 412",
    )

    def versions(self) -> frozenset[str] | None:
        """Return the versions of which the stored one must be (RFC 9110 13.1.1); None for any."""
        if "if_match" not in self.model_fields_set:
            return None
        tags = parse_etags(self.if_match)
        return None if tags.star_tag else frozenset(tags.as_set())


class View(BaseModel):
    """What is answered."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


WITH_ETAG = ConfigDict(
    openapi_extra={"headers": {"ETag": {"description": "its version, for If-Match", "schema": {"type": "string"}}}},  # type: ignore[typeddict-unknown-key]
)
"""For a view that is answered with `tagged`."""


class PermissionBody(Body):
    """A rule: who has it may, or with effect `deny` may not, use what `resource` covers."""

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
    """A weakness that an administrator should know of; `code` is stable."""

    code: str
    message: str


class PageQuery(Query):
    """Which part of a list."""

    page: int = Field(1, ge=1, le=1_000_000)
    per_page: int = Field(50, ge=1, le=1000)


class SearchQuery(PageQuery):
    """Which part of a list, and what to look for in it."""

    search: Text = Field("", max_length=200)


class FieldProblem(BaseModel):
    """One field that was refused."""

    field: str
    message: str


class Problem(BaseModel):
    """An error, as RFC 9457 has it; `code` is stable, `errors` names the fields."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[FieldProblem] = []


def permissions_from(bodies: Iterable[PermissionBody]) -> tuple[Permission, ...]:
    """Return the rules that these spell; a bad one is named by its place, as `permissions[2].resource`."""
    permissions = []
    for position, body in enumerate(bodies):
        try:
            permissions.append(body.permission())
        except InvalidInput as error:
            raise error.within(f"permissions[{position}]") from None
    return tuple(permissions)


def view_permission(permission: Permission) -> PermissionView:
    """Show a rule."""
    return PermissionView.model_validate(permission.fields())


def view_warnings(warnings: Iterable[PolicyWarning]) -> list[WarningView]:
    """Show warnings."""
    return [WarningView(code=code, message=message) for code, message in warnings]


def render(view: View) -> dict[str, Any]:
    """Return what Flask turns into JSON."""
    return view.model_dump(mode="json", by_alias=True)


def tagged(view: View, version: str) -> Answer:
    """Return what Flask turns into an answer with an ETag."""
    return render(view), 200, {"ETag": quote_etag(version)}


def render_page(page: Page[Any], views: Iterable[View]) -> dict[str, Any]:
    """Return a list's page in its one form."""
    items = [render(view) for view in views]
    return {"items": items, "page": page.page, "perPage": page.per_page, "total": page.total}


def failures(*statuses: int) -> ResponseDict:
    """Describe these statuses as problems, for OpenAPI."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"content": content} for status in statuses}


def noun(name: str, description: str) -> APIBlueprint:
    """Return a blueprint below `/api` whose operations need a caller and can fail in the usual ways."""
    return APIBlueprint(
        name,
        name,
        url_prefix="/api",
        abp_tags=[Tag(name=name, description=description)],
        abp_security=[{"token": []}, {"tokenInAddress": []}, {"password": []}],
        abp_responses=failures(400, 401, 403, 404, 409, 412, 413, 429, 503),
    )

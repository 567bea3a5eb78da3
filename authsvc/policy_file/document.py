"""The policy document: the users, roles and preauthorizations that a policy file names.

An absent field has its default, with one exception: without `passwordHash` a user keeps its password. Lists are
sorted and without duplicates, because their order has no meaning; so equal entries are the same policy.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    StrictBool,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel

from authsvc.credentials import password_hashes, usernames
from authsvc.errors import InvalidInput
from authsvc.policy.allowed_client_ids import MAX_LENGTH, MAX_PATTERNS, validate_client_id
from authsvc.policy.permissions import PERMISSION_FORM, Permission
from authsvc.policy.snapshot import GrantType
from authsvc.record_json import checked_by, rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_ROLES, MAX_PERMISSIONS = 1000, 10_000
SCHEMA_PATH = "/api/policy.schema.json"

_parse_permission = lru_cache(maxsize=4096)(Permission.parse)


def _permission(given: Any) -> Permission:
    if isinstance(given, Permission):
        return given
    if not isinstance(given, str):
        raise ValueError(f"must be text: {PERMISSION_FORM}")  # noqa: TRY004 - pydantic reports a ValueError
    try:
        return _parse_permission(given)
    except InvalidInput as error:
        raise ValueError(error.errors[0].message) from None


def in_order(values: Iterable[Any]) -> tuple[Any, ...]:
    """Return the values of a list in the order of a document: sorted as text, each once."""
    return tuple(sorted(set(values), key=str))


def _password_hash(given: str | None) -> str | None:
    try:
        return None if given is None else password_hashes.parse(given).text
    except password_hashes.UnusableHash as error:
        raise ValueError(error.message) from None


_Username = Annotated[
    str, checked_by(usernames.validate_username), Field(examples=["press-7"], json_schema_extra={"minLength": 1})
]
_RoleName = Annotated[str, checked_by(usernames.validate_role_name), Field(examples=["line-operator"])]
_Roles = Annotated[
    tuple[_RoleName, ...], Field(max_length=MAX_ROLES, description="names of roles"), AfterValidator(in_order)
]
_Permission = Annotated[
    Permission,
    PlainValidator(_permission),
    PlainSerializer(str),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^\s*((allow|deny)\s+)?((mqtt|http)\s+)?(read|write|readWrite)\s+\S",
            "description": f"{PERMISSION_FORM}; `allow` and `mqtt` may be omitted",
            "examples": ["readWrite devices/%u/#", "deny read plant/secret/#", "http read /api/users/#"],
        }
    ),
]
_Permissions = Annotated[
    tuple[_Permission, ...],
    Field(max_length=MAX_PERMISSIONS, description="allowed and denied topics, or paths of this service"),
    AfterValidator(in_order),
]
_ClientIds = Annotated[
    tuple[Annotated[str, checked_by(validate_client_id), Field(json_schema_extra={"maxLength": MAX_LENGTH})], ...],
    Field(
        max_length=MAX_PATTERNS,
        description="allowed client ids: %u is the username, * any characters; without any pattern, all are allowed",
        examples=[["%u", "%u-*"]],
    ),
    AfterValidator(in_order),
]
_GrantTypes = Annotated[
    frozenset[GrantType],
    PlainSerializer(lambda given: sorted(each.value for each in given)),
    Field(description="how the user may log in to the broker; without any it may only sign in to this service"),
]
_Time = Annotated[
    AwareDatetime,
    BeforeValidator(lambda given: datetime.fromisoformat(given) if isinstance(given, str) else given),
    AfterValidator(lambda moment: moment.astimezone(UTC).replace(microsecond=0)),
    PlainSerializer(rfc3339),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-11-20T08:00:00Z"]}),
]


class _Entry(BaseModel):
    """One block of the file: known fields only, in camelCase there and with their own names in Python."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class PolicyRole(_Entry):
    """A role: permissions and allowed client ids that many users share. The built-in roles are not in the file."""

    name: _RoleName
    description: Annotated[str, Field(max_length=1000, pattern=r"^[^\x00]*$")] = ""
    permissions: _Permissions = ()
    client_ids: _ClientIds = ()


class PolicyUser(_Entry):
    """A user. Without `passwordHash` a user that exists keeps its password, and a new one has none."""

    username: _Username
    enabled: StrictBool = True
    grant_types: _GrantTypes = frozenset({GrantType.PASSWORD})
    roles: _Roles = ()
    permissions: _Permissions = ()
    client_ids: _ClientIds = ()
    password_hash: Annotated[
        str | None, AfterValidator(_password_hash), Field(repr=False, description="a secret; see --with-hashes")
    ] = None

    @property
    def name(self) -> str:
        return self.username


class PolicyPreauthorization(_Entry):
    """A grant for a username before its first contact.

    `withSecret` says that it is bound to a one-time secret; `secretDigest` is the digest of that secret.
    """

    username: _Username
    roles: _Roles = ()
    permissions: _Permissions = ()
    csr_fingerprint: Annotated[
        str | None, Field(pattern="^[0-9a-f]{64}$", description="SHA-256 of the public key of the device's CSR")
    ] = None
    expires_at: _Time | None = None
    with_secret: StrictBool = False
    secret_digest: Annotated[
        str | None, Field(repr=False, pattern="^[0-9a-f]{64}$", description="a secret; see --with-hashes")
    ] = None

    @property
    def name(self) -> str:
        return self.username


class PolicyDocument(_Entry):
    """The policy of one authsvc.

    `apply --prune` removes roles, users or preauthorizations that are not in the file only if the file has that list.
    """

    roles: tuple[PolicyRole, ...] = ()
    users: tuple[PolicyUser, ...] = ()
    preauthorizations: tuple[PolicyPreauthorization, ...] = ()


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of the file, with which editors complete it."""
    schema = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": schema} | PolicyDocument.model_json_schema() | {"title": "Policy of authsvc"}

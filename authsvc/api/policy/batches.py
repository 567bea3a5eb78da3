"""Up to 10,000 users created or deleted in one request: all of them or none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, ValidationError

from authsvc.accounts import client_id_warnings
from authsvc.api.policy.plans import permit
from authsvc.api.schemas import Body, Text, View, WarningView, noun, permissions_from, render
from authsvc.api.users import UserBody
from authsvc.credentials.passwords import generate
from authsvc.errors import InvalidInput, invalid
from authsvc.policy_file import batches
from authsvc.policy_file.document import PolicyUser
from authsvc.web.request_context import actor, services

if TYPE_CHECKING:
    from authsvc.credentials.passwords import PasswordHasher

MAX_HASHED = 100
"""Passwords that one request may have hashed with bcrypt, which takes about 50 ms each."""

blueprint = noun("batches", "Many users in one request: all of them or none")


class BatchUserBody(UserBody):
    """A new user. It can have the hash of its password instead of the password."""

    password_hash: Annotated[Text, Field(max_length=1024)] | None = Field(
        None, description="a bcrypt, PBKDF2, argon2id or Mosquitto hash"
    )

    def user(self, password_hash: str | None) -> PolicyUser:
        """Return the user with a hash of its password; `InvalidInput` names the wrong field."""
        try:
            return PolicyUser.model_validate(
                {
                    "username": self.username,
                    "enabled": self.enabled,
                    "grantTypes": self.grant_types,
                    "roles": self.roles,
                    "permissions": permissions_from(self.permissions),
                    "clientIds": self.client_ids,
                    "passwordHash": password_hash,
                }
            )
        except ValidationError as error:
            raise InvalidInput.of_validation(error) from None


class BatchBody(Body):
    """New users."""

    users: list[BatchUserBody] = Field(min_length=1, max_length=batches.MAX_USERS)
    generate_passwords: bool = Field(
        False, description="generate a password for each user without password and passwordHash"
    )


class NewPasswordView(View):
    username: str
    password: str


class BatchView(View):
    """The number of created users, and the generated passwords, which are shown only once."""

    created: int
    passwords: list[NewPasswordView]
    warnings: list[WarningView]


class DeletionBody(Body):
    """The users to delete."""

    usernames: list[Annotated[Text, Field(max_length=255)]] = Field(min_length=1, max_length=batches.MAX_USERS)


class DeletionView(View):
    deleted: int


@blueprint.post("/users/batch", responses={201: BatchView})
def create_users(body: BatchBody) -> tuple[dict[str, Any], int]:
    """Create up to 10,000 users: all of them or none. Each error names the position and the field.

    At most 100 of them may have a `password`, because hashing takes time; use `generatePasswords` or `passwordHash`.
    """
    if sum(user.password is not None for user in body.users) > MAX_HASHED:
        message = f"at most {MAX_HASHED} users may have a password; use generatePasswords or passwordHash"
        raise invalid("users", message)
    hasher = services().hasher
    created, generated = [], []
    for position, user in enumerate(body.users):
        password: str | None = user.password
        if body.generate_passwords and password is None and user.password_hash is None:
            password = generate(hasher.policy)
            generated.append(NewPasswordView(username=user.username, password=password))
        try:
            created.append(user.user(_hash(user, password, hasher)))
        except InvalidInput as error:
            raise error.within(f"users[{position}]") from None
    batches.create(actor(), created, permit)
    warnings = [
        WarningView(code=warning.code, message=warning.message)
        for warning in client_id_warnings.of_new_names(user.username for user in created)
    ]
    return render(BatchView(created=len(created), passwords=generated, warnings=warnings)), 201


@blueprint.post("/users/batch-delete", responses={200: DeletionView})
def delete_users(body: DeletionBody) -> dict[str, Any]:
    """Delete up to 10,000 users with their tokens, and revoke their certificates: all of them or none."""
    usernames = list(dict.fromkeys(body.usernames))
    batches.delete(actor(), usernames, permit)
    return render(DeletionView(deleted=len(usernames)))


def _hash(user: BatchUserBody, password: str | None, hasher: PasswordHasher) -> str | None:
    if password is None:
        return user.password_hash
    if user.password_hash is not None:
        raise invalid("passwordHash", "cannot be combined with password")
    return hasher.hash(password)

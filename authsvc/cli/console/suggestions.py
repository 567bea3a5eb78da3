"""Near names in the error for a user or role that does not exist."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from authsvc.cli.console.groups import suggestion
from authsvc.errors import AuthsvcError, InvalidInput
from authsvc.storage.database import session
from authsvc.storage.models import Role, User

if TYPE_CHECKING:
    from collections.abc import Mapping

_MAX_NAMES = 20_000
_USERNAMES: tuple[str, ...] = ("username",)
_ROLES = ("name", "role_names", "add_role")


def completed(error: AuthsvcError, parameters: Mapping[str, Any]) -> AuthsvcError:
    """Return the error of a command, with the wrong name and near names if it is about a user or a role.

    `parameters` are those of the command. Read the names only after an error; up to 20,000 of them are compared.
    """
    model: Any
    if error.code == "user-not-found":
        model, column, wanted = User, User.username, _USERNAMES
    elif error.code == "role-not-found" or (isinstance(error, InvalidInput) and "no such role" in error.message):
        model, column, wanted = Role, Role.name, _ROLES
    else:
        return error
    given = _texts(parameters.get(name) for name in wanted)
    with session():
        known = {name for (name,) in model.select(column).order_by(column).limit(_MAX_NAMES).tuples()}
    wrong = next((name for name in given if name not in known), None)
    if wrong is None:
        return error
    near = suggestion(wrong, known)
    return AuthsvcError(f"{error.message}: {wrong}{near and '.'}{near}", error.code)


def _texts(values: Any) -> list[str]:
    found: list[str] = []
    for value in values:
        found += [value] if isinstance(value, str) else value or ()
    return found

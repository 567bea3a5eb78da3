"""Imports beside other changes of the policy."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from authsvc.accounts import users
from authsvc.errors import Conflict
from authsvc.importing import go_auth
from authsvc.importing.moving_in import move_in
from tests.actors import HASHER, OPERATOR, http
from tests.importing.test_go_auth import PASSWORDS
from tests.storage.environment import create_user

if TYPE_CHECKING:
    from authsvc.policy_file.plan import Plan

pytestmark = pytest.mark.usefixtures("prepared")


def test_user_that_becomes_an_administrator_during_an_import_is_not_changed() -> None:
    create_user("press-7")
    given = users.UserChanges(permissions=(http("readWrite", "/#"),))

    def promote(_: Plan) -> None:
        if not users.get("press-7").permissions:
            with ThreadPoolExecutor() as another:
                another.submit(users.change, OPERATOR, "press-7", given, HASHER).result()

    imported = go_auth.read_files(PASSWORDS, b"user press-7\ntopic read a\n")
    with pytest.raises(Conflict) as refused:
        move_in(OPERATOR, imported, update=True, dry_run=False, permit=promote)
    assert refused.value.code == "policy-changed"
    assert users.get("press-7").permissions == given["permissions"]

"""What users may change about their own sign-in without any permission."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from authsvc.accounts import users
from authsvc.errors import Unauthenticated, invalid

if TYPE_CHECKING:
    from authsvc.accounts.sign_in.passwords import SignIns
    from authsvc.credentials.passwords import PasswordHasher
    from authsvc.policy.actors import Actor


def change_password(sign_ins: SignIns, actor: Actor, current: str, new: str, hasher: PasswordHasher) -> None:
    """Set the actor's own password, as `users.change` does; `InvalidInput` if the current one is wrong.

    Wrong passwords count as in a sign-in. A password that somebody else sets at the same time stays.
    """
    try:
        proof = sign_ins.with_password(actor.username, current, actor.address).proof
        # Without rules: nobody can take over further rights by changing the own password.
        users.change(replace(actor, rules=None, proof=proof), actor.username, {"password": new}, hasher)
    except Unauthenticated:
        raise invalid("currentPassword", "is not the password of this account") from None

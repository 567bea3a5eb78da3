"""Names that can be mistaken for that of a registration: of users, of preauthorized devices, and of denied ones."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from authsvc.credentials.usernames import skeleton
from authsvc.storage.database import database_time
from authsvc.storage.models import User
from registry.models import Preauthorization, Registration
from registry.states import Status

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_NAMES = 10


def similar_names(usernames: Iterable[str]) -> dict[str, list[str]]:
    """Return for each name up to `MAX_NAMES` other names that look like it.

    They are those of users, of preauthorizations that have not expired, and of denied registrations.
    """
    skeletons = {username: skeleton(username) for username in usernames}
    wanted = set(skeletons.values())
    found: dict[str, set[str]] = defaultdict(set)
    in_force = Preauthorization.expires_at.is_null() | (Preauthorization.expires_at > database_time())
    for query in (
        _named(User, wanted),
        _named(Preauthorization, wanted, in_force),
        _named(Registration, wanted, Registration.status == Status.DENIED),
    ):
        for form, name in query.tuples():
            found[form].add(name)
    return {username: sorted(found[form] - {username})[:MAX_NAMES] for username, form in skeletons.items()}


def _named(model: Any, skeletons: set[str], *conditions: Any) -> Any:
    return model.select(model.skeleton, model.username).where(model.skeleton.in_(skeletons), *conditions)

"""Usernames that can be mistaken for the username of a registration."""

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
    """Return for each username up to `MAX_NAMES` other names with the same skeleton.

    They are the names of users, of preauthorizations that have not expired, and of denied registrations.
    """
    skeletons = {username: skeleton(username) for username in usernames}
    found: dict[str, set[str]] = defaultdict(set)
    is_valid = Preauthorization.expires_at.is_null() | (Preauthorization.expires_at > database_time())
    conditions: dict[Any, list[Any]] = {
        User: [],
        Preauthorization: [is_valid],
        Registration: [Registration.status == Status.DENIED],
    }
    for model, extra in conditions.items():
        has_skeleton = model.skeleton.in_(set(skeletons.values()))
        for form, name in model.select(model.skeleton, model.username).where(has_skeleton, *extra).tuples():
            found[form].add(name)
    return {username: sorted(found[form] - {username})[:MAX_NAMES] for username, form in skeletons.items()}

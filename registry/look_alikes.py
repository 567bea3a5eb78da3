"""Names that can be mistaken for the name of a registration: users, and registrations that were denied."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from authsvc.credentials.usernames import skeleton
from authsvc.storage.models import User
from registry.models import Registration
from registry.states import Status

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_NAMES = 10


def similar_names(usernames: Iterable[str]) -> dict[str, list[str]]:
    """Return for each name up to `MAX_NAMES` other names, of users and denied registrations, that look like it."""
    skeletons = {username: skeleton(username) for username in usernames}
    wanted = set(skeletons.values())
    found: dict[str, set[str]] = defaultdict(set)
    users: Any = User.select(User.skeleton, User.username).where(User.skeleton.in_(wanted))
    denied: Any = Registration.select(Registration.skeleton, Registration.username).where(
        Registration.skeleton.in_(wanted), Registration.status == Status.DENIED
    )
    for query in (users, denied):
        for form, name in query.tuples():
            found[form].add(name)
    return {username: sorted(found[form] - {username})[:MAX_NAMES] for username, form in skeletons.items()}

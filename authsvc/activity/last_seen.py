"""When each user was last seen: connected to a broker, calling this service with a token, or at the page.

Client ids are kept for 30 days and their time is exact to about 10 minutes, so a user that is seen on a broker only is
"never seen" after 30 days.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peewee import JOIN, fn

from authsvc.storage.database import session
from authsvc.storage.models import Broker, BrowserSession, ClientIdRow, LiveClient, Token, User

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime


def joined(query: Any) -> tuple[Any, Any]:
    """Return a query of users, joined to their times, and the column of the time, which is null for "never"."""
    latest = _latest().alias("seen")
    return query.join(latest, JOIN.LEFT_OUTER, on=(latest.c.username == User.username)), latest.c.at


def since(moment: datetime) -> Any:
    """Return the query for the names of the users that were seen at this time or later."""
    found = _seen().alias("found")
    # A column of a subquery has no type, so peewee would not convert the time.
    stored = ClientIdRow.seen_at.db_value(moment)
    return ClientIdRow.select(found.c.username).from_(found).where(found.c.at >= stored)


def of_users(selecting: Callable[[Any], Any]) -> dict[str, datetime]:
    """Return when some users were last seen, without those that never were.

    `selecting` turns a column of usernames into the condition that selects them.
    """
    with session():
        rows = _latest(selecting).tuples()
        return {username: at for username, value in rows if (at := ClientIdRow.seen_at.python_value(value))}


def _latest(selecting: Callable[[Any], Any] | None = None) -> Any:
    """Return the query for the name and the latest time of all users, or of the selected ones."""
    found = _seen(selecting).alias("found")
    latest = ClientIdRow.select(found.c.username, fn.MAX(found.c.at).alias("at"))
    return latest.from_(found).group_by(found.c.username)


def _seen(selecting: Callable[[Any], Any] | None = None) -> Any:
    """Return the query for each name and time at which all users, or the selected ones, were seen."""
    sources: list[Any] = [
        # An ACL request does not prove who the client is.
        ClientIdRow.select(ClientIdRow.username.alias("username"), ClientIdRow.seen_at.alias("at")).where(
            ClientIdRow.logged_in
        ),
        # A client that stays connected asks nothing for days, but its broker reports it.
        LiveClient.select(LiveClient.username, Broker.reported_at).join(Broker),
        Token.select(User.username, Token.last_used_at).join(User).where(Token.last_used_at.is_null(False)),
        BrowserSession.select(User.username, BrowserSession.last_seen_at).join(User),
    ]
    columns = (ClientIdRow.username, LiveClient.username, User.username, User.username)
    if selecting is not None:
        sources = [source.where(selecting(column)) for source, column in zip(sources, columns, strict=True)]
    first, *others = sources
    for other in others:
        first = first.union_all(other)
    return first

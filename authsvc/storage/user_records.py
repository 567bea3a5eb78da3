"""Reads many users into records, from which a user is made when it is asked for.

A record is the text of the columns of one user, as they are stored. The database joins the rows of a user, and one
regular expression accepts a record or not. So a user costs some 10 µs and no object. A user with a value that the
expression does not accept is read by `policy_reader`, which knows what is damaged and what is only unusual.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from peewee import chunked

from authsvc.policy.permissions import Context, Effect, Operation, Permission
from authsvc.policy.snapshot import NO_CERTIFICATES, NO_TOKENS, UserPolicy
from authsvc.policy.topics import ORDINARY_RULE
from authsvc.storage import policy_reader
from authsvc.storage.database import database, is_sqlite
from authsvc.storage.models import User

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_BATCH = 500  # names in one IN (...)
_ROWS = 5_000  # users in one query of all users
_KEPT = 65_536  # users that were asked for last, of some 1.5 kB
_MAX_LENGTH = 16_384  # a longer record would take long to unpack

_FIELD, _LINE = "\x1e", "\n"
_PERMISSION = rf"(?:allow|deny) (?:mqtt|http(?= [a-zA-Z]++ /)) (?:read|write|readWrite) (?![\n\x1e]){ORDINARY_RULE}"
_PATTERN = r'"[^"\\\x00-\x1f]*+"'
_TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?"


def _lines(line: str) -> str:
    return rf"(?:{line}(?:\n{line})*+)?"


_ORDINARY = re.compile(
    _FIELD.join(
        (
            r"[A-Za-z0-9][A-Za-z0-9_.\-]*",
            "[01]",
            r"(?:(?:password|certificate|token)(?:,(?:password|certificate|token))*)?",
            r"[^\x00-\x1f]*",
            rf"\[(?:{_PATTERN}(?:, ?{_PATTERN})*+)?\]",
            _lines(_PERMISSION),
            _lines(r"[A-Za-z0-9_.\-]++"),
            _lines(rf"[0-9a-f]++ {_TIME}"),
            _lines(rf"[0-9A-Fa-f]++ {_TIME},{_TIME},{_TIME}"),
        )
    )
)
# A fifth of the time that the enumerations take.
_CONTEXTS = {str(each): each for each in Context}
_OPERATIONS = {str(each): each for each in Operation}
_EFFECTS = {str(each): each for each in Effect}


def read(usernames: Iterable[str] | None, now: datetime) -> Iterator[tuple[str, bytes | UserPolicy]]:
    """Yield those of these users that exist, or all users for None, by name: each as a record, or as it was read."""
    for rows in _batches(usernames, now):
        others: list[int] = []
        for user_id, record in rows:
            if record and len(record) <= _MAX_LENGTH and _ORDINARY.fullmatch(record):
                yield record.partition(_FIELD)[0], record.encode()
            else:
                others.append(user_id)
        for batch in chunked(others, _BATCH):
            yield from policy_reader.policies_where(User.id.in_(batch), now).items()


@lru_cache(maxsize=_KEPT)
def unpack(record: bytes) -> UserPolicy:
    """Return the user that a record describes."""
    username, enabled, grant_types, password_hash, client_ids, permissions, roles, tokens, certificates = (
        record.decode().split(_FIELD)
    )
    return UserPolicy(
        username,
        enabled == "1",
        User.grant_types.python_value(grant_types),
        password_hash or None,
        tuple(map(_permission, permissions.split(_LINE))) if permissions else (),
        tuple(sorted(roles.split(_LINE))) if roles else (),
        _times(tokens) if tokens else NO_TOKENS,
        _times(certificates.upper()) if certificates else NO_CERTIFICATES,
        User.client_ids.python_value(client_ids),
    )


@lru_cache(maxsize=4096)  # most users have the same few
def _permission(text: str) -> Permission:
    effect, context, operation, resource = text.split(" ", 3)
    return Permission(_CONTEXTS[context], _OPERATIONS[operation], resource, _EFFECTS[effect])


def _times(lines: str) -> dict[str, datetime]:
    """Return the earliest of the times after each name."""
    found = {}
    for line in lines.split(_LINE):
        name, _, times = line.partition(" ")
        try:
            found[name] = min(map(datetime.fromisoformat, times.split(","))).replace(tzinfo=UTC)
        except ValueError:  # no such day: long past, like every damaged time
            continue
    return found


def _batches(usernames: Iterable[str] | None, now: datetime) -> Iterator[list[tuple[Any, ...]]]:
    """Yield the rows of these users, or of all users for None, a few thousand at a time."""
    # UTC without a time zone, as it is stored.
    times = (now.astimezone(UTC).replace(tzinfo=None),) * 4
    if not is_sqlite():
        # Before PostgreSQL has statistics of new tables it would compile each of these queries, which takes 0.3 s.
        database.execute_sql("SET LOCAL jit = off")
    if usernames is not None:
        for batch in chunked(sorted(usernames), _BATCH):
            names = ", ".join([database.param] * len(batch))
            yield database.execute_sql(_query(f"username IN ({names})"), (*times, *batch)).fetchall()
        return
    last, query = 0, _query(f"users.id > {database.param}") + f" LIMIT {_ROWS}"
    while rows := database.execute_sql(query, (*times, last)).fetchall():
        yield rows
        last = rows[-1][0]


def _query(condition: str) -> str:
    """Return the query for the ids and records of users, with a parameter for the time in four places."""
    aggregate, character = ("group_concat", "char") if is_sqlite() else ("string_agg", "chr")
    line, field, now = f"{character}(10)", f"{character}(30)", database.param

    def joined(word: str, rows: str) -> str:
        # A line feed inside a value becomes a field too many, so that nothing in it is taken for another value.
        word = f"replace({word}, {line}, {field})"
        return f"coalesce((SELECT {aggregate}({word}, {line}) FROM {rows}), '')"  # noqa: S608 - no input

    words = "effect || ' ' || context || ' ' || operation || ' ' || resource"
    words = _text(words, "max(effect, context, operation, resource)")
    own = f"(SELECT {words} AS permission FROM permissions WHERE user_id = users.id ORDER BY id) AS own"  # noqa: S608
    # All times, not the least of them: a damaged one may be greater, and so would not be noticed.
    ends = ("not_after", "coalesce(revoked_at, not_after)", "coalesce(retires_at, not_after)")
    joined_ends = " || ',' || ".join(ends)
    certificate = _text(f"serial || ' ' || {joined_ends}", f"max(serial, {', '.join(ends)})")
    token = _text("digest || ' ' || expires_at", "max(digest, expires_at)")
    confirmed = "EXISTS (SELECT 1 FROM identities WHERE user_id = users.id)"
    columns = (
        _text("username"),
        # `policy_reader` reads the few users of providers: their tokens end with the confirmation.
        f"CASE WHEN {confirmed} THEN '-' WHEN enabled = TRUE THEN '1' ELSE '0' END",
        _text("grant_types"),
        f"CASE WHEN password_hash IS NULL THEN '' ELSE {_text('password_hash')} END",
        _text("client_ids"),
        joined("permission", own),
        joined(_text("name"), "user_roles JOIN roles ON roles.id = role_id WHERE user_id = users.id"),
        joined(token, f"tokens WHERE user_id = users.id AND expires_at > {now}"),
        joined(
            certificate,
            # CROSS: SQLite joins in this order. Otherwise it may read all certificates of an authority for each user.
            "certificates CROSS JOIN authorities WHERE authorities.id = authority_id AND user_id = users.id "
            f"AND not_after > {now} AND (revoked_at IS NULL OR revoked_at > {now}) "
            f"AND (retires_at IS NULL OR retires_at > {now})",
        ),
    )
    record = f" || {field} || ".join(columns)
    return f"SELECT users.id, {record} FROM users WHERE {condition} ORDER BY users.id"  # noqa: S608 - no input


def _text(text: str, column: str | None = None) -> str:
    """Return the SQL of a text, or of a NUL if the column that it is made from is a blob.

    SQLite can hold a blob in a text column and would join it like a text. It sorts each text before each blob.
    """
    return f"CASE WHEN {column or text} < x'' THEN {text} ELSE char(0) END" if is_sqlite() else text

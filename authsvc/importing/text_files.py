"""The lines of Mosquitto's password_file and acl_file, which go-auth's files backend reads too.

Formats: mosquitto.conf(5), mosquitto_passwd(1), and the sources of Mosquitto 2.0.11 and 2.1.2. A line that Mosquitto
would not read becomes a note.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from authsvc.credentials.password_hashes import UnusableHash, parse
from authsvc.credentials.usernames import validate_username
from authsvc.errors import InvalidInput
from authsvc.importing.notes import Note, left_out
from authsvc.policy import topics

if TYPE_CHECKING:
    from collections.abc import Iterator

PASSWORDS = "password_file"
ACL = "acl_file"

_ACCESSES = {"read": "read", "write": "write", "readwrite": "readWrite", "deny": "deny"}


@dataclass(frozen=True, slots=True)
class AclLine:
    """One `topic` or `pattern` line. `username` is None before the first `user` line.

    `access` is `read`, `write`, `readWrite` or `deny`, and in go-auth's files also `subscribe`.
    """

    number: int
    username: str | None
    is_pattern: bool
    access: str
    topic: str

    @property
    def place(self) -> str:
        return acl_place(self.number)


def acl_place(number: int) -> str:
    return f"{ACL} line {number}"


def read_passwords(content: bytes, notes: list[Note], *, salt_is_text: bool = False) -> dict[str, str]:
    """Return the stored form of each user's hash. A line that cannot be used becomes a note."""
    found: dict[str, str] = {}
    for number, line in _lines(content, PASSWORDS, notes):
        place = f"{PASSWORDS} line {number}"
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, password = line.partition(":")
        username = name.strip()
        if not colon:
            notes.append(left_out(place, "there is no : in this line"))
        elif username in found:
            notes.append(left_out(place, f"{username} has an earlier line, which is imported", username))
        elif is_usable_name(username, place, notes):
            stored = usable_hash(username, password.strip(), place, notes, salt_is_text=salt_is_text)
            if stored:
                found[username] = stored
    return found


def is_usable_name(username: str, place: str, notes: list[Note]) -> bool:
    """Return whether a user may have this name; otherwise add a note."""
    try:
        validate_username(username)
    except InvalidInput as error:
        notes.append(left_out(place, f"the username {error.errors[0].message}"))
        return False
    return True


def usable_hash(username: str, text: str, place: str, notes: list[Note], *, salt_is_text: bool = False) -> str | None:
    """Return the stored form of a hash of another system; otherwise None, with a note."""
    try:
        return parse(text, salt_is_text=salt_is_text).text
    except UnusableHash as error:
        advice = ""
        if error.code == "not-a-hash":
            advice = (
                "; if the file has passwords in plain text, hash them with `mosquitto_passwd -U FILE` and import it"
                " again"
            )
        notes.append(left_out(place, f"{username} is not imported: {error.message}{advice}", username))
        return None


def read_acl(content: bytes, notes: list[Note], *, with_subscribe: bool = False) -> Iterator[AclLine]:
    """Yield the rules of an acl_file in their order. A line that cannot be read becomes a note.

    `with_subscribe` accepts the access `subscribe` of go-auth. Whether authsvc can express a topic is not checked.
    """
    accesses = _ACCESSES | ({"subscribe": "subscribe"} if with_subscribe else {})
    username: str | None = None
    for number, line in _lines(content, ACL, notes):
        place = acl_place(number)
        if line.startswith("#") or not line.strip():
            continue
        word, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        if not rest or word not in ("user", "topic", "pattern"):
            notes.append(left_out(place, "the line is not `user NAME`, `topic [ACCESS] FILTER` or `pattern ...`"))
        elif word == "user":
            username = rest
        else:
            access, _, topic = rest.partition(" ")
            topic = topic.strip()
            if not topic:
                access, topic = "readwrite", rest
            if access in accesses:
                yield AclLine(number, username, word == "pattern", accesses[access], topic)
            else:
                notes.append(left_out(place, f"the access must be one of {', '.join(accesses)}"))


def rule_problem(topic: str) -> str:
    """Return why authsvc cannot express this topic filter as a permission; empty if it can."""
    try:
        topics.validate_rule(topic)
    except InvalidInput as error:
        return error.errors[0].message
    return ""


def has_placeholder(topic: str) -> bool:
    """Return whether authsvc would replace %u or %c in this topic filter."""
    return not {"%u", "%c"}.isdisjoint(topics.split(topic))


def _lines(content: bytes, source: str, notes: list[Note]) -> Iterator[tuple[int, str]]:
    """Yield each line with its number, without the white space at its end; a note for one that is not UTF-8."""
    for number, line in enumerate(content.split(b"\n"), start=1):
        try:
            yield number, line.decode().rstrip()
        except UnicodeDecodeError:
            notes.append(left_out(f"{source} line {number}", "the line is not valid UTF-8"))

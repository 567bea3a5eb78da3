"""What devices say of themselves, for people to read."""

from __future__ import annotations


def escape_invisible(said: str) -> str:
    r"""Return what a stranger says with everything spelled out that does not show, or that turns other text round.

    A username of `a\u202eb` is not to be taken for another one.
    """
    return "".join(letter if letter.isprintable() or letter == "\n" else _spelled(letter) for letter in said)


def _spelled(letter: str) -> str:
    return letter.encode("ascii", "backslashreplace").decode() if not letter.isascii() else f"\\x{ord(letter):02x}"

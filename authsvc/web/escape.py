"""Escape text from unknown devices for display."""

from __future__ import annotations


def escape_invisible(text: str) -> str:
    r"""Return the text with escapes for characters that are invisible or change the direction of text.

    Without this, the username `a\u202eb` could look like another one.
    """
    return "".join(each if each.isprintable() or each == "\n" else _escaped(each) for each in text)


def _escaped(character: str) -> str:
    if character.isascii():
        return f"\\x{ord(character):02x}"
    return character.encode("ascii", "backslashreplace").decode()

"""Secrets in addresses: API tokens under every spelling of `apiToken`, and the webhook secret under `key`.

Only `apiToken` itself signs anybody in. People misspell it, and programs encode it once too often; what they send is a
token all the same, and must stand in no log line, redirect or error.
"""

from __future__ import annotations

import re
from urllib.parse import unquote


def _spellings(letter: str) -> str:
    """Return an expression for a character in either case, percent-encoded any number of times or not at all."""
    codes = "|".join(f"{ord(case):02x}" for case in dict.fromkeys((letter.lower(), letter.upper())))
    return f"(?:{re.escape(letter)}|%(?:25)*(?:{codes}))"


def _parameter(name: str) -> str:
    return "".join(map(_spellings, f"{name}="))


_SEPARATOR = f"(?:{_spellings('&')}|{_spellings(';')})"
# A value ends where the next part of an address or of a log line begins.
_VALUE = r"""[^&;#\s'"<>\\]*"""
_API_TOKEN = re.compile(f"{_SEPARATOR}?{_parameter('apiToken')}{_VALUE}", re.IGNORECASE)
# Not `monkey=`; but a percent-encoded separator before the name, such as %3F, may end in a letter.
_KEY = rf"(?:(?<![a-z])|(?<=\d[a-f]))(?:webhook[-_]?)?{_parameter('key')}"
_ANY_SECRET = re.compile(f"({_parameter('apiToken')}|{_KEY}){_VALUE}", re.IGNORECASE)
# A JSON Web Token (RFC 7519), whatever stands before it; its header is short, and an endless one is not searched.
_DOT = f"(?i:{_spellings('.')})"
_JSON_WEB_TOKEN = re.compile(rf"eyJ[\w-]{{10,200}}{_DOT}[\w-]{{10,}}(?:{_DOT}[\w-]*)?", re.ASCII)


def without_tokens(address: str, instead: str = "") -> str:
    """Return a path or query with `instead` in place of each API token, its name and the separator before it."""
    return _API_TOKEN.sub(instead, address)


def without_secrets(text: str) -> str:
    """Return the text with `...` in place of every secret that stands in an address within it, or looks like one."""
    return _JSON_WEB_TOKEN.sub("...", _ANY_SECRET.sub(r"\1...", text))


def cleaned_address(address: str) -> str | None:
    """Return an address without tokens and secrets; None if one of them is percent-encoded itself, in whole or part.

    Such a secret cannot be cut out: cleaning the address and cleaning its decoded form then have different results.
    """
    cleaned = without_secrets(without_tokens(address))
    decoded = without_secrets(without_tokens(_fully_unquoted(address)))
    return cleaned if _fully_unquoted(cleaned) == decoded else None


def _fully_unquoted(address: str) -> str:
    while (decoded := unquote(address)) != address:
        address = decoded
    return address


def gives_token(part: str) -> bool:
    """Say whether a part of a query gives an API token, under any spelling of its name."""
    return _API_TOKEN.match(part) is not None

"""Removes secrets from URLs: API tokens under every spelling of `apiToken`, and the webhook secret under `key`.

Only the exact name `apiToken` authenticates. A token under a misspelt or repeatedly percent-encoded name is still a
secret that no log line, redirect or error may contain.
"""

from __future__ import annotations

import re
from urllib.parse import unquote


def _spellings(letter: str) -> str:
    """Return a regular expression for a character in either case, percent-encoded any number of times or not."""
    codes = "|".join(f"{ord(case):02x}" for case in dict.fromkeys((letter.lower(), letter.upper())))
    return f"(?:{re.escape(letter)}|%(?:25)*(?:{codes}))"


def _parameter(name: str) -> str:
    return "".join(map(_spellings, f"{name}="))


_SEPARATOR = f"(?:{_spellings('&')}|{_spellings(';')})"
# A value ends at the next part of a URL or of a log line.
_VALUE = r"""[^&;#\s'"<>\\]*"""
_API_TOKEN = re.compile(f"{_SEPARATOR}?{_parameter('apiToken')}{_VALUE}", re.IGNORECASE)
# Not `monkey=`. But a percent-encoded separator before the name, such as %3F, can end in a letter.
_KEY = rf"(?:(?<![a-z])|(?<=\d[a-f]))(?:webhook[-_]?)?{_parameter('key')}"
_ANY_SECRET = re.compile(f"({_parameter('apiToken')}|{_KEY}){_VALUE}", re.IGNORECASE)
# A JSON Web Token (RFC 7519) after any text. The length of its header is limited, to bound the search time.
_DOT = f"(?i:{_spellings('.')})"
_JSON_WEB_TOKEN = re.compile(rf"eyJ[\w-]{{10,200}}{_DOT}[\w-]{{10,}}(?:{_DOT}[\w-]*)?", re.ASCII)


def without_tokens(address: str, instead: str = "") -> str:
    """Return a path or query with each API token, its name and the separator before it replaced by `instead`."""
    return _API_TOKEN.sub(instead, address)


def without_secrets(text: str) -> str:
    """Return the text with `...` in place of each secret in a URL, and of each JSON Web Token."""
    return _JSON_WEB_TOKEN.sub("...", _ANY_SECRET.sub(r"\1...", text))


def cleaned_address(address: str) -> str | None:
    """Return a URL without tokens and secrets; None if one of them is itself percent-encoded, in whole or in part.

    Such a secret cannot be removed: cleaning the URL and cleaning its decoded form then have different results.
    """
    cleaned = without_secrets(without_tokens(address))
    decoded = without_secrets(without_tokens(_fully_unquoted(address)))
    return cleaned if _fully_unquoted(cleaned) == decoded else None


def _fully_unquoted(address: str) -> str:
    while (decoded := unquote(address)) != address:
        address = decoded
    return address


def gives_token(part: str) -> bool:
    """Return whether a query parameter is an API token, under any spelling of its name."""
    return _API_TOKEN.match(part) is not None

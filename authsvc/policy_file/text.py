"""The text of a policy file: YAML or JSON to a document, and a document to YAML in a stable order.

A plain scalar is text, except `true`, `false` and `null`: usernames such as 0042, 1e5 or no need no quotes. Aliases
are refused, so a small file cannot describe a huge document; so are tags.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NoReturn

import yaml
from pydantic import ValidationError

from authsvc.errors import FieldError, InvalidInput, invalid
from authsvc.policy_file.document import PolicyDocument

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BYTES = 128 * 1024 * 1024
_MAX_DEPTH = 8
_MAX_ERRORS = 100
_LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # 30 times as fast; wheels of PyYAML have it
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}

_Location = tuple[int | str, ...]


def parse(text: str) -> PolicyDocument:
    """Return the document of a YAML text; the message of each `InvalidInput` error begins with its line."""
    try:
        return _document(_Reader(text).read())
    except _Misplaced as error:
        lines = _Reader(text).lines()
        raise InvalidInput(
            *(
                FieldError(one.field, f"line {_line_of(lines, location)}: {one.message}")
                for location, one in error.found
            )
        ) from None


def parse_json(text: str) -> PolicyDocument:
    """Return the document of a JSON text; `InvalidInput` names the wrong fields."""
    if len(text) > MAX_BYTES:
        raise invalid("body", f"must be at most {MAX_BYTES} bytes")
    try:
        return _document(json.loads(text, object_pairs_hook=_without_duplicates))
    except json.JSONDecodeError as error:
        raise invalid("body", f"line {error.lineno}: is not valid JSON") from None
    except RecursionError:
        raise invalid("body", "is nested too deeply") from None
    except _Misplaced as error:
        raise InvalidInput(*(one for _, one in error.found)) from None


def write(document: PolicyDocument, schema_url: str, *, with_hashes: bool = False) -> Iterator[str]:
    """Yield the YAML of a document, sorted by name, one entry after the other; fields with a default are omitted."""
    yield f"# yaml-language-server: $schema={schema_url}\n"
    for section in PolicyDocument.model_fields:
        entries = sorted(getattr(document, section), key=lambda entry: entry.name)
        yield f"\n{section}:\n" if entries else f"\n{section}: []\n"
        for position, entry in enumerate(entries):
            secrets = set() if with_hashes else {"password_hash", "secret_digest"}
            fields = entry.model_dump(by_alias=True, exclude_defaults=True, exclude=secrets)
            yield "\n" * bool(position) + yaml.dump(
                [fields], Dumper=_DUMPER, sort_keys=False, allow_unicode=True, width=10_000
            )


class _Misplaced(Exception):
    """Errors with their locations in the document."""

    def __init__(self, found: list[tuple[_Location, FieldError]]) -> None:
        super().__init__()
        self.found = found


def _document(value: Any) -> PolicyDocument:
    try:
        document = PolicyDocument.model_validate(value, by_alias=True, by_name=False)
    except ValidationError as error:
        locations = [one["loc"] for one in error.errors(include_input=False, include_url=False, include_context=False)]
        found = list(zip(locations, InvalidInput.of_validation(error).errors, strict=True))
        raise _Misplaced(found[:_MAX_ERRORS]) from None
    duplicates = _duplicates(document)
    if duplicates:
        raise _Misplaced(duplicates[:_MAX_ERRORS])
    return document


def _duplicates(document: PolicyDocument) -> list[tuple[_Location, FieldError]]:
    found: list[tuple[_Location, FieldError]] = []
    users: set[str] = set()
    for section in PolicyDocument.model_fields:
        names = set(users) if section == "preauthorizations" else set()
        for position, entry in enumerate(getattr(document, section)):
            if entry.name in names:
                field = "name" if section == "roles" else "username"
                message = f"{entry.name} is named twice"
                found.append(((section, position, field), FieldError(f"{section}[{position}].{field}", message)))
            names.add(entry.name)
        if section == "users":
            users = names
    return found


class _Reader:
    """Builds plain values from the events of a YAML text, which PyYAML's parser in C yields."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_BYTES:
            raise invalid("body", f"must be at most {MAX_BYTES} bytes")
        self._text = text
        self._lines: dict[_Location, int] | None = None

    def read(self) -> Any:
        """Return the value of the text; `InvalidInput` with the line if it is not YAML or uses more than the above."""
        events = yaml.parse(self._text, Loader=_LOADER)
        try:
            next(events)  # the start of the stream
            if isinstance(next(events), yaml.StreamEndEvent):
                return {}  # an empty file
            value = self._value(next(events), events, ())
            next(events)  # the end of the document
            following = next(events)
            if not isinstance(following, yaml.StreamEndEvent):
                _refuse(following, "must be one document; remove this ---")
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = f"line {mark.line + 1}: " if mark else ""
            raise invalid("body", f"{place}is not valid YAML: {error.problem}") from None
        except yaml.reader.ReaderError as error:
            line = self._text.count("\n", 0, error.position) + 1
            raise invalid("body", f"line {line}: has a character that YAML does not allow") from None
        return value

    def lines(self) -> dict[_Location, int]:
        """Return the line of each value by its location."""
        self._lines = {}
        self.read()
        return self._lines

    def _value(self, event: yaml.Event, events: Iterator[yaml.Event], location: _Location) -> Any:
        if isinstance(event, yaml.AliasEvent):
            _refuse(event, "aliases are not supported; give users that share permissions a role")
        if getattr(event, "tag", None) not in (None, "!"):
            _refuse(event, "tags are not supported")
        if self._lines is not None:
            self._lines.setdefault(location, _line(event))
        if isinstance(event, yaml.ScalarEvent):
            return _WORDS.get(event.value, event.value) if event.implicit[0] else event.value
        if len(location) > _MAX_DEPTH:
            _refuse(event, "is nested too deeply")
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Any] = []
            while not isinstance(event := next(events), yaml.SequenceEndEvent):
                items.append(self._value(event, events, (*location, len(items))))
            return items
        return self._fields(events, location)

    def _fields(self, events: Iterator[yaml.Event], location: _Location) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                _refuse(event, "must be the name of a field")
            if event.value in fields:
                _refuse(event, f"{event.value} is given twice")
            if self._lines is not None:
                self._lines[*location, event.value] = _line(event)
            fields[event.value] = self._value(next(events), events, (*location, event.value))
        return fields


def _line_of(lines: dict[_Location, int], location: _Location) -> int:
    while location not in lines and location:  # a missing field is reported at its entry
        location = location[:-1]
    return lines.get(location, 1)


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _refuse(event: yaml.Event, message: str) -> NoReturn:
    raise invalid("body", f"line {_line(event)}: {message}")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name in fields:
            raise invalid("body", f"{name} is given twice")
        fields[name] = value
    return fields

"""The order of the packages in docs/architecture.md, checked by reading what every module imports."""

from __future__ import annotations

import ast
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKOUT = Path(__file__).parents[1]
# From the top to the bottom: a module imports from its own place in this list and from places below it.
ORDER = (
    *("authsvc.cli.main", "registry.cli", "authsvc.cli", "authsvc.server", "authsvc.app"),
    *("registry.extension", "registry.admin", "registry.api", "registry"),
    *("authsvc.jobs", "authsvc.admin", "authsvc.api", "authsvc.web", "authsvc.exports", "authsvc.broker"),
    *("authsvc.identity", "authsvc.importing", "authsvc.policy_file", "authsvc.accounts"),
    *("authsvc.pki", "authsvc.notifications", "authsvc.activity"),
    *("authsvc.observability", "authsvc.storage"),
    *("authsvc.policy", "authsvc.settings", "authsvc.credentials", "authsvc.record_json"),
    *("authsvc.addresses", "authsvc.errors", "authsvc"),
)
MAY_IMPORT_REGISTRY = {"authsvc.app", "authsvc.cli.service"}
PURE = ("authsvc.policy", "authsvc.credentials", "authsvc.addresses", "authsvc.errors")
NOT_IN_PURE = {"flask", "peewee", "playhouse", "gunicorn", "psycopg", "click", "structlog", "prometheus_client"}
KNOWS_FLASK = (
    "authsvc.web",
    "authsvc.api",
    "authsvc.admin",
    "authsvc.app",
    "registry.api",
    "registry.admin",
    "authsvc.broker.asgi",
)
NOT_ON_THE_HOT_PATH = (
    *("authsvc.storage", "authsvc.activity", "authsvc.notifications", "authsvc.accounts"),
    *("authsvc.importing", "authsvc.policy_file", "peewee", "requests", "socket"),
)
FORBIDDEN_WORDS = {"manager", "helper", "helpers", "util", "utils", "info", "data", "process", "do"}
NAMED_BY_ASYNCIO = {"data_received"}
MAX_LINES, MAX_MODULES, MAX_MODULES_AT_THE_TOP = 500, 14, 6


def _modules() -> dict[str, Path]:
    found = {}
    for package in ("authsvc", "registry"):
        for path in (CHECKOUT / package).rglob("*.py"):
            if path.parent.name != "migrations":  # scripts that peewee runs with arguments of its own
                parts = path.relative_to(CHECKOUT).with_suffix("").parts
                found[".".join(parts).removesuffix(".__init__")] = path
    return dict(sorted(found.items()))


MODULES = _modules()


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def imports(module: str) -> Iterator[str]:
    """Yield what a module imports, also for types only; a module of the project by its full name."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{module} imports by a relative name"
            for alias in node.names:
                longer = f"{node.module}.{alias.name}"
                yield longer if longer in MODULES else node.module


def is_within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def place(module: str) -> int:
    """Return the place of a module in ORDER: that of the longest name that contains it."""
    return ORDER.index(max((name for name in ORDER if is_within(module, (name,))), key=len))


def test_modules_import_downwards_only() -> None:
    upwards = [
        f"{module} imports {imported}"
        for module in MODULES
        for imported in imports(module)
        if imported.split(".")[0] in ("authsvc", "registry") and place(imported) < place(module)
    ]
    assert not upwards


def test_only_the_composition_root_and_the_command_line_import_the_registry() -> None:
    importing = {
        module
        for module in MODULES
        if is_within(module, ("authsvc",)) and any(is_within(imported, ("registry",)) for imported in imports(module))
    }
    assert importing == MAY_IMPORT_REGISTRY


@pytest.mark.parametrize("module", [module for module in MODULES if is_within(module, ("authsvc.broker",))])
def test_the_hot_path_imports_nothing_that_could_block_a_broker(module: str) -> None:
    assert not [imported for imported in imports(module) if is_within(imported, NOT_ON_THE_HOT_PATH)]


@pytest.mark.parametrize("module", [module for module in MODULES if is_within(module, PURE)])
def test_pure_packages_know_neither_frameworks_nor_environment(module: str) -> None:
    assert not NOT_IN_PURE & {imported.split(".")[0] for imported in imports(module)}


def test_flask_is_imported_only_where_http_is_answered() -> None:
    importing = {
        module for module in MODULES if {"flask", "werkzeug"} & {name.split(".")[0] for name in imports(module)}
    }
    assert not [module for module in importing if not is_within(module, KNOWS_FLASK)]


def test_pages_call_use_cases_and_no_tables() -> None:
    tables = ("authsvc.storage.models", "authsvc.storage.database", "registry.models", "peewee", "playhouse")
    pages = [module for module in MODULES if is_within(module, ("authsvc.admin", "registry.admin"))]
    assert not [module for module in pages if any(is_within(imported, tables) for imported in imports(module))]


def test_packages_and_modules_are_small_enough_to_be_read() -> None:
    plain = [module for module, path in MODULES.items() if path.name != "__init__.py"]
    sizes = Counter(module.rpartition(".")[0] for module in plain)
    assert sizes["authsvc"] <= MAX_MODULES_AT_THE_TOP
    assert not [package for package, modules in sizes.items() if modules > MAX_MODULES]
    lines = {module: path.read_text(encoding="utf-8").count("\n") for module, path in MODULES.items()}
    assert not [module for module, count in lines.items() if count > MAX_LINES]


def test_names_avoid_words_that_say_nothing() -> None:
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    named = {module.rpartition(".")[2] for module in MODULES}
    named |= {node.name for module in MODULES for node in ast.walk(tree(module)) if isinstance(node, kinds)}
    named -= NAMED_BY_ASYNCIO
    assert not [name for name in named if FORBIDDEN_WORDS & words(name) or name.endswith("Service")]


def words(name: str) -> set[str]:
    """Return the words of a name in snake_case or CamelCase."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


def test_the_documentation_shows_the_same_order() -> None:
    text = (CHECKOUT / "docs" / "architecture.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\| `(\w+)/?`", text, re.MULTILINE)
    packages = [name.removeprefix("authsvc.") for name in ORDER if name.startswith("authsvc.") and name.count(".") == 1]
    assert shown == packages


def test_every_module_that_where_to_change_names_exists() -> None:
    text = (CHECKOUT / "docs" / "where-to-change.md").read_text(encoding="utf-8")
    column = re.findall(r"^\| .* \|(.*)\|$", text, re.MULTILINE)
    named = [name for cell in column for name in re.findall(r"`([a-z]\w*(?:/[\w/.-]*)?)`", cell)]
    assert {"policy/topics", "jobs"} <= set(named)
    places = [(root, end) for root in (CHECKOUT, CHECKOUT / "authsvc") for end in ("", ".py")]
    assert [name for name in named if not any((root / (name + end)).exists() for root, end in places)] == []


def test_every_decision_record_is_listed_once() -> None:
    directory = CHECKOUT / "docs" / "adr"
    listed = re.findall(r"\]\((.*)\)$", (directory / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert listed == sorted(path.name for path in directory.glob("[0-9]*.md"))

"""The layers of docs/architecture.md, held by reading what every module imports."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKOUT = Path(__file__).parents[1]


def modules(package: str, names: str) -> set[str]:
    return {f"{package}.{name}" for name in names.split()}


RULES = modules(
    "authsvc",
    "errors addresses topics usernames decision permissions allowed_client_ids remedies rule_index passwords hashing "
    "guess_limit known_client_ids tokens pki signing_requests renewals sharded_map snapshot signals settings hosts "
    "proxies redaction actors paging",
)
STORAGE = modules("authsvc", "storage")
USE_CASES = modules(
    "authsvc",
    "stored policy access users roles logins sign_in signing_keys authorities certificates crl_sync sessions sightings "
    "denials history overview findings client_id_warnings "
    "takeover throttle throttled_logins proof audit browser_sessions administrators first_start backups",
)
# A package stands for all its modules; what is named nowhere is edge.
LAYERS = (
    RULES | {"authsvc", "registry.states"},
    STORAGE | {"registry.models"},
    USE_CASES
    | modules(
        "registry",
        "records window decisions http_rights look_alikes attempted_names preauthorizations preauthorization_match "
        "enrolment_keys explicit intake limits contacts contact_queue locked_attempts unknown_names filters",
    ),
)
EDGE = len(LAYERS)
WEBHOOKS_MAY_IMPORT = modules(
    "authsvc",
    "access policy permissions passwords hashing guess_limit tokens decision errors signals metrics usernames hosts "
    "webhook_wire",
)
# Waiting for hashes is limited by the time that passes, and so are wrong passwords; they know no more of the clock.
MAY_READ_THE_CLOCK = {"authsvc.hashing", "authsvc.guess_limit"}
PAGES = ("authsvc.admin", "registry.pages")
# Here, and nowhere else in authsvc, the registry is put together with the rest.
MAY_IMPORT_REGISTRY = ("authsvc.app", "authsvc.cli")
NOT_IN_RULES = {
    "flask",
    "peewee",
    "playhouse",
    "gunicorn",
    "psycopg",
    "click",
    "time",
    "structlog",
    "prometheus_client",
}
CLOCK_AND_ENVIRONMENT = {
    "datetime.now", "datetime.utcnow", "datetime.today", "date.today", "time.time", "time.monotonic",
    "os.environ", "os.getenv", "os.environb",
}  # fmt: skip
FORBIDDEN_WORDS = {"manager", "helper", "helpers", "util", "utils", "info", "process", "do"}
MAX_LINES = 500


def _modules() -> dict[str, Path]:
    found = {}
    for package in ("authsvc", "registry"):
        for path in (CHECKOUT / package).rglob("*.py"):
            if path.parent.name != "migrations":  # scripts that peewee runs with arguments of its own
                parts = path.relative_to(CHECKOUT).with_suffix("").parts
                found[".".join(parts).removesuffix(".__init__")] = path
    return dict(sorted(found.items()))


MODULES = _modules()
each_module = pytest.mark.parametrize("module", MODULES)


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def imports(module: str) -> Iterator[str]:
    """Yield what a module imports, wherever in it and for whatever; a module of ours by its full name."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{module} imports by a relative name"
            for alias in node.names:
                longer = f"{node.module}.{alias.name}"
                yield longer if longer in MODULES else node.module


def names_imported_from(module: str, library: str) -> set[str]:
    froms = [node for node in ast.walk(tree(module)) if isinstance(node, ast.ImportFrom) and node.module == library]
    return {alias.name for node in froms for alias in node.names}


def our_imports(module: str) -> set[str]:
    return {imported for imported in imports(module) if imported.split(".")[0] in ("authsvc", "registry")}


def layer_of(module: str) -> int:
    ancestors = {module, *(module[: dot.start()] for dot in re.finditer(r"\.", module))} - {"authsvc", "registry"}
    return next((layer for layer, names in enumerate(LAYERS) if names & (ancestors | {module})), EDGE)


def is_within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


@each_module
def test_a_module_imports_from_its_own_layer_and_those_before_it(module: str) -> None:
    too_high = {imported for imported in our_imports(module) if layer_of(imported) > layer_of(module)}
    assert not too_high, f"{module} is in layer {layer_of(module)}"


@pytest.mark.parametrize("module", [module for module in MODULES if layer_of(module) == 0])
def test_rules_know_neither_libraries_of_the_outside_nor_clock_nor_environment(module: str) -> None:
    known = {imported.split(".")[0] for imported in imports(module)}
    assert not (known - ({"time"} if module in MAY_READ_THE_CLOCK else set())) & NOT_IN_RULES
    read = {ast.unparse(node) for node in ast.walk(tree(module)) if isinstance(node, ast.Attribute)}
    assert not read & CLOCK_AND_ENVIRONMENT
    assert not {f"os.{name}" for name in names_imported_from(module, "os")} & CLOCK_AND_ENVIRONMENT


@pytest.mark.parametrize("module", [module for module in MODULES if layer_of(module) < EDGE])
def test_flask_is_known_at_the_edge_alone(module: str) -> None:
    assert not {"flask", "werkzeug", "gunicorn"} & {imported.split(".")[0] for imported in imports(module)}
    assert "current_app" not in MODULES[module].read_text(encoding="utf-8")


def test_the_webhooks_import_nothing_that_could_keep_a_broker_waiting() -> None:
    assert our_imports("authsvc.webhooks") <= WEBHOOKS_MAY_IMPORT


@pytest.mark.parametrize("module", [module for module in MODULES if is_within(module, PAGES)])
def test_a_page_knows_use_cases_and_no_table(module: str) -> None:
    known = our_imports(module)
    assert not [one for one in known if layer_of(one) == 1]
    assert not {"peewee", "playhouse", "sqlite3", "psycopg"} & {one.split(".")[0] for one in imports(module)}


@pytest.mark.parametrize("module", [module for module in MODULES if is_within(module, ("authsvc",))])
def test_authsvc_does_not_know_the_registry_but_where_they_are_put_together(module: str) -> None:
    assert is_within(module, MAY_IMPORT_REGISTRY) or not any(
        is_within(imported, ("registry",)) for imported in our_imports(module)
    )


def test_every_module_of_the_table_exists() -> None:
    assert set().union(*LAYERS) <= MODULES.keys()


def test_the_documentation_shows_the_same_table() -> None:
    text = (CHECKOUT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (\d) [a-z ]+\| (.*?) \|", text, re.MULTILINE))
    shown = [modules("authsvc", " ".join(re.findall(r"`([a-z_]+)/?`", rows[layer]))) for layer in "012"]
    assert shown == [RULES, STORAGE, USE_CASES]


@each_module
def test_every_argument_is_annotated(module: str) -> None:
    bare = [
        f"{function.name}({argument.arg})"
        for function in ast.walk(tree(module))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for argument in arguments(function.args)
        if argument.annotation is None and argument.arg not in ("self", "cls")
    ]
    assert not bare


def arguments(given: ast.arguments) -> list[ast.arg]:
    rest = [argument for argument in (given.vararg, given.kwarg) if argument]
    return [*given.posonlyargs, *given.args, *given.kwonlyargs, *rest]


@each_module
def test_a_module_can_be_read_at_one_sitting(module: str) -> None:
    lines = MODULES[module].read_text(encoding="utf-8").count("\n")
    assert lines <= MAX_LINES


@each_module
def test_names_say_what_a_thing_is_for(module: str) -> None:
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    named = [module.rpartition(".")[2], *(node.name for node in ast.walk(tree(module)) if isinstance(node, kinds))]
    assert not [name for name in named if FORBIDDEN_WORDS & words(name) or name.endswith("Service")]


def words(name: str) -> set[str]:
    """Return the words of a name, in either of the ways in which names are put together."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


@pytest.mark.parametrize("name", ["do_it", "_process", "UserManager", "helpers", "get_info", "HTTPUtil", "DoIt"])
def test_a_forbidden_word_is_found_in_whatever_name(name: str) -> None:
    assert FORBIDDEN_WORDS & words(name)


@pytest.mark.parametrize("name", ["document", "processor", "doing", "informal", "utility", "subprocess_of"])
def test_a_word_that_only_begins_like_one_is_none(name: str) -> None:
    assert not FORBIDDEN_WORDS & words(name)

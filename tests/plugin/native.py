"""The plugin's rule sets and users in C, called through ctypes, and the same questions put to authsvc.policy."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Self

from authsvc.errors import InvalidInput
from authsvc.policy.access import decide_access
from authsvc.policy.decision import Reason
from tests.broker import BUILD_DIR

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import TracebackType

    from authsvc.policy.snapshot import Snapshot

PLUGIN = Path(__file__).parents[2] / "deploy" / "mosquitto" / "plugin"
PURE_SOURCES = (PLUGIN / "rules.c", PLUGIN / "user.c")
BRIDGE = Path(__file__).parent / "bridge.c"
_REASONS = 11  # of C's enum
COMPILE = ("gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", f"-I{PLUGIN}")
# Without -Bsymbolic the C library's own, empty hooks are called.
COUNT_CALLS = (
    "-finstrument-functions",
    f"-finstrument-functions-exclude-file-list={BRIDGE.name}",
    "-Wl,-Bsymbolic",
)


def build(name: str, sources: Sequence[Path], *flags: str) -> Path:
    """Compile C sources with rules.c and user.c, or return the result that these very sources already gave.

    Safe in several processes at once: each compiles under a name of its own and renames.
    """
    compiled = (*PURE_SOURCES, *sources)
    fingerprint = hashlib.sha256(repr((COMPILE, flags)).encode())
    for path in sorted({*compiled, *PLUGIN.glob("*.h")}):
        fingerprint.update(path.read_bytes())
    target = BUILD_DIR / f"{name}-{fingerprint.hexdigest()[:16]}"
    if not target.exists():
        BUILD_DIR.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_suffix(f".{os.getpid()}")
        subprocess.run([*COMPILE, *flags, "-o", unfinished, *compiled, "-lcjson"], check=True)
        unfinished.replace(target)
    return target


def encoded(text: str) -> bytes:
    """Return the bytes of a C string. A lone surrogate becomes the bytes that are no valid UTF-8 either."""
    return text.encode(errors="surrogatepass")


class Native:
    """The functions of rules.c, user.c and bridge.c."""

    def __init__(self, library: Path) -> None:
        self._c = ctypes.CDLL(str(library))
        text, pointer, size = ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t
        for name, result, arguments in (
            ("reason_text", text, [ctypes.c_int]),
            ("ruleset_new", pointer, []),
            ("ruleset_add", ctypes.c_bool, [pointer, text]),
            ("ruleset_free", None, [pointer]),
            ("ruleset_decide", ctypes.c_int, [pointer, ctypes.c_int, text, text, text]),
            ("client_id_allowed", ctypes.c_bool, [ctypes.POINTER(text), size, text, text]),
            ("bridge_user", pointer, [text, size]),
            ("user_free", None, [pointer]),
            ("user_has_credential", ctypes.c_bool, [pointer, text, ctypes.c_long]),
            ("user_next_expiry", ctypes.c_long, [pointer, ctypes.c_long]),
            ("user_decide", ctypes.c_int, [pointer, text, ctypes.c_int, text]),
            ("bridge_user_bytes", size, [text, size]),
            ("bridge_calls", size, []),
        ):
            function = getattr(self._c, name)
            function.restype, function.argtypes = result, arguments
        reasons = {reason.value: reason for reason in Reason}
        self._reasons = [reasons[self._c.reason_text(number).decode()] for number in range(_REASONS)]

    def reason(self, number: int) -> Reason:
        """Return the reason that this number of C's enum stands for."""
        return self._reasons[number]

    def rules(self, *rules: str) -> NativeRules:
        """Return a rule set with these rules, which must be valid."""
        ruleset = NativeRules(self)
        assert [rule for rule in rules if not ruleset.add(rule)] == []
        return ruleset

    def user(self, fields: Mapping[str, object] | bytes) -> NativeUser | None:
        """Return the user of these JSON fields or of this JSON text, None if C refuses them."""
        user = NativeUser(self, fields if isinstance(fields, bytes) else encoded(json.dumps(fields)))
        return user if user.pointer else None

    def client_id_allowed(self, patterns: Iterable[str], username: str, client_id: str) -> bool:
        """Return what C says about allowed client ids."""
        texts = [encoded(pattern) for pattern in patterns]
        array = (ctypes.c_char_p * len(texts))(*texts)
        return bool(self._c.client_id_allowed(array, len(texts), encoded(username), encoded(client_id)))

    def user_bytes(self, fields: Mapping[str, object]) -> int:
        """Return the memory that a user takes."""
        text = json.dumps(fields).encode()
        return int(self._c.bridge_user_bytes(text, len(text)))

    def calls(self) -> int:
        """Return the number of functions called since the last time; 0 in a library that does not count."""
        return int(self._c.bridge_calls())


class _Owned:
    """A pointer that is freed at the end of a `with` block."""

    def __init__(self, native: Native, pointer: int | None) -> None:
        self._native, self._c, self.pointer = native, native._c, pointer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._free()

    def _free(self) -> None:
        raise NotImplementedError


class NativeRules(_Owned):
    def __init__(self, native: Native) -> None:
        super().__init__(native, native._c.ruleset_new())

    def add(self, rule: str) -> bool:
        """Return whether C accepts the rule."""
        return bool(self._c.ruleset_add(self.pointer, encoded(rule)))

    def decide(self, access: int, topic: str, username: str = "", client_id: str = "") -> Reason:
        """Return the reason of the decision."""
        number = self._c.ruleset_decide(self.pointer, access, encoded(topic), encoded(username), encoded(client_id))
        return self._native.reason(number)

    def _free(self) -> None:
        self._c.ruleset_free(self.pointer)


class NativeUser(_Owned):
    def __init__(self, native: Native, text: bytes) -> None:
        super().__init__(native, native._c.bridge_user(text, len(text)))

    def decide(self, client_id: str, access: int, topic: str) -> Reason:
        """Return the reason of the decision."""
        return self._native.reason(self._c.user_decide(self.pointer, encoded(client_id), access, encoded(topic)))

    def has_credential(self, credential: str, now: int) -> bool:
        return bool(self._c.user_has_credential(self.pointer, credential.encode(), now))

    def next_expiry(self, now: int) -> int:
        return int(self._c.user_next_expiry(self.pointer, now))

    def _free(self) -> None:
        self._c.user_free(self.pointer)


def reason_in_policy(snapshot: Snapshot, username: str, client_id: str | None, topic: str, access: int) -> Reason:
    """Return the reason of the decision by authsvc.policy."""
    try:
        return decide_access(snapshot, username, client_id, topic, access).reason
    except InvalidInput:
        return Reason.MALFORMED


def user_fields(**changed: object) -> dict[str, object]:
    """Return the JSON fields of Bob, who may do nothing; `changed` replaces some of them."""
    fields: dict[str, object] = {"username": "bob", "version": 7, "refused": None}
    return {**fields, "credentials": {}, "clientIds": [], "rules": [], "roles": [], **changed}

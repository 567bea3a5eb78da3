"""The plugin as it is deployed, and with the compiler's sanitizers."""

from __future__ import annotations

import hashlib
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.broker import BUILD_DIR

if TYPE_CHECKING:
    from collections.abc import Mapping

SOURCES = Path(__file__).parents[3] / "deploy" / "mosquitto" / "plugin"
SANITIZE = "-fsanitize=address,undefined -fno-omit-frame-pointer -g -Wl,-z,nodelete"
# Mosquitto does not free everything of websockets and of a start that fails; the plugin never calls these functions.
MOSQUITTO_LEAKS = ("mosquitto__calloc", "mosquitto__malloc", "mosquitto__realloc", "mosquitto__strdup")
SANITIZER_REPORTS = ("AddressSanitizer", "LeakSanitizer", "runtime error:")


@dataclass(frozen=True)
class Build:
    """A compiled plugin and the environment that a broker needs to load it."""

    plugin: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_sanitized(self) -> bool:
        return bool(self.environment)


def build_plugin(flags: str = "") -> Path:
    """Run the plugin's Makefile, or return the result that these very sources and flags already gave.

    Safe in several processes at once: each compiles under a name of its own and renames.
    """
    fingerprint = hashlib.sha256(flags.encode())
    for source in sorted(path for path in SOURCES.iterdir() if path.suffix != ".so"):
        fingerprint.update(source.read_bytes())
    plugin = BUILD_DIR / f"mosquitto_authsvc-{fingerprint.hexdigest()[:16]}.so"
    if not plugin.exists():
        BUILD_DIR.mkdir(parents=True, exist_ok=True)
        unfinished = plugin.with_suffix(f".{os.getpid()}")
        command: list[str | Path] = [
            "make",
            "--silent",
            "-C",
            SOURCES,
            "-B",
            f"PLUGIN={unfinished}",
            f"LDFLAGS={flags}",
        ]
        subprocess.run(command, check=True)
        unfinished.replace(plugin)
    return plugin


def plain() -> Build:
    return Build(build_plugin())


def sanitized() -> Build:
    library = subprocess.run(["gcc", "-print-file-name=libasan.so"], check=True, capture_output=True, text=True)
    plugin = build_plugin(SANITIZE)
    suppressions = plugin.with_suffix(".leaks")
    suppressions.write_text("".join(f"leak:{function}\n" for function in MOSQUITTO_LEAKS))
    options = {
        "ASAN_OPTIONS": "detect_leaks=1:allocator_may_return_null=1",
        "LSAN_OPTIONS": f"suppressions={suppressions}:print_suppressions=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    return Build(plugin, {"LD_PRELOAD": library.stdout.strip(), **options})

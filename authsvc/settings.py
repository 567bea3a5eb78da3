"""The settings, read from environment variables; an unknown or malformed variable is an error."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, fields
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from authsvc.addresses import parse_networks
from authsvc.credentials.passwords import PasswordPolicy
from authsvc.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from authsvc.addresses import Network

PREFIX = "AUTHSVC_"
SECRETS = ("ADMIN_PASSWORD", "WEBHOOK_SECRET", "DATABASE_URL", "CA_KEY_PASSPHRASE", "BROKER_URL")
LOG_LEVELS = ("debug", "info", "warning", "error")
_BIND = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[^:\s]+):(?P<port>[0-9]{1,5})")


class Lifetime(NamedTuple):
    """The lifetime of a browser session: `idle` since its last use, `absolute` since its start."""

    idle: timedelta
    absolute: timedelta


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of the service; `docs/settings.md` describes each one."""

    data_dir: Path
    database_url: str
    admin_password: str | None = None
    webhook_secret: str | None = None
    bind: str = "127.0.0.1:8080"
    broker_bind: str = "127.0.0.1:8070"
    bcrypt_cost: int = 10
    password_policy: PasswordPolicy = PasswordPolicy()  # noqa: RUF009 - frozen
    workers: int = 1
    api_workers: int = 1
    threads: int = 16
    hash_workers: int = 2
    hash_queue: int = 10_000
    connect_budget_ms: int = 150
    credential_cache_entries: int = 100_000
    answer_cache_entries: int = 50_000
    policy_poll_ms: int = 200
    trusted_proxies: tuple[Network, ...] = ()
    session_idle_minutes: int = 30
    session_hours: int = 12
    connections_per_address: int = 256
    wrong_passwords_per_minute: int = 10
    token_max_days: int | None = None
    tokens_per_minute: int = 30
    log_level: str = "info"
    ca_key_passphrase: str | None = None
    certificate_days: int = 365
    crl_days: int = 7
    renewal_overlap_hours: int = 24
    broker_url: str | None = None
    broker_ca_file: str | None = None
    mutual_tls: bool = False
    registry_capture_while_locked: bool = True
    registry_pending_ttl_hours: int = 24
    registry_max_pending: int = 1000
    registry_max_locked: int = 200
    registry_attempts_per_minute: int = 30
    registry_address_attempts_per_minute: int = 120
    registry_names_per_minute: int = 600
    registry_max_request_bytes: int = 65_536

    def __repr__(self) -> str:
        return "Settings(...)"  # a traceback must not show the secrets

    @property
    def session_lifetime(self) -> Lifetime:
        return Lifetime(timedelta(minutes=self.session_idle_minutes), timedelta(hours=self.session_hours))


def from_environment(environ: Mapping[str, str]) -> Settings:
    """Return the settings of the `AUTHSVC_*` variables; `SettingsError` names an unknown or malformed one."""
    values = _read(environ)
    data_dir = Path(values.text("DATA_DIR", "./data")).absolute()
    settings = Settings(
        data_dir=data_dir,
        database_url=values.text("DATABASE_URL", f"sqlite:///{data_dir}/authsvc.db"),
        admin_password=values.optional("ADMIN_PASSWORD"),
        webhook_secret=values.optional("WEBHOOK_SECRET"),
        bind=values.bind("BIND", "127.0.0.1:8080"),
        broker_bind=values.bind("BROKER_BIND", "127.0.0.1:8070"),
        bcrypt_cost=values.number("BCRYPT_COST", 10, 4, 16),
        password_policy=values.password_policy("PASSWORD_POLICY"),
        workers=values.number("WORKERS", 1, 1, 64),
        api_workers=values.number("API_WORKERS", 1, 1, 64),
        threads=values.number("THREADS", 16, 2, 256),
        hash_workers=values.number("HASH_WORKERS", os.cpu_count() or 1, 1, 64),
        hash_queue=values.number("HASH_QUEUE", 10_000, 1, 1_000_000),
        connect_budget_ms=values.number("CONNECT_BUDGET_MS", 150, 0, 4000),
        credential_cache_entries=values.number("CREDENTIAL_CACHE_ENTRIES", 100_000, 1, 10_000_000),
        answer_cache_entries=values.number("ANSWER_CACHE_ENTRIES", 50_000, 1, 10_000_000),
        policy_poll_ms=values.number("POLICY_POLL_MS", 200, 20, 1000),
        trusted_proxies=values.networks("TRUSTED_PROXIES"),
        session_idle_minutes=values.number("SESSION_IDLE_MINUTES", 30, 1, 1440),
        session_hours=values.number("SESSION_HOURS", 12, 1, 720),
        connections_per_address=values.number("CONNECTIONS_PER_ADDRESS", 256, 1, 65_536),
        wrong_passwords_per_minute=values.number("WRONG_PASSWORDS_PER_MINUTE", 10, 1, 1_000_000),
        token_max_days=values.optional_number("TOKEN_MAX_DAYS", 1, 36_500),
        tokens_per_minute=values.number("TOKENS_PER_MINUTE", 30, 1, 1_000_000),
        log_level=values.choice("LOG_LEVEL", "info", LOG_LEVELS),
        ca_key_passphrase=values.optional("CA_KEY_PASSPHRASE"),
        certificate_days=values.number("CERTIFICATE_DAYS", 365, 1, 3650),
        crl_days=values.number("CRL_DAYS", 7, 1, 365),
        renewal_overlap_hours=values.number("RENEWAL_OVERLAP_HOURS", 24, 0, 8760),
        broker_url=values.optional("BROKER_URL"),
        broker_ca_file=values.optional("BROKER_CA_FILE"),
        mutual_tls=values.choice("MUTUAL_TLS", "no", ("yes", "no")) == "yes",
        registry_capture_while_locked=values.flag("REGISTRY_CAPTURE_WHILE_LOCKED", default=True),
        registry_pending_ttl_hours=values.number("REGISTRY_PENDING_TTL_HOURS", 24, 1, 8760),
        registry_max_pending=values.number("REGISTRY_MAX_PENDING", 1000, 1, 100_000),
        registry_max_locked=values.number("REGISTRY_MAX_LOCKED", 200, 1, 10_000),
        registry_attempts_per_minute=values.number("REGISTRY_ATTEMPTS_PER_MINUTE", 30, 1, 10_000),
        registry_address_attempts_per_minute=values.number("REGISTRY_ADDRESS_ATTEMPTS_PER_MINUTE", 120, 1, 10_000),
        registry_names_per_minute=values.number("REGISTRY_NAMES_PER_MINUTE", 600, 1, 10_000),
        registry_max_request_bytes=values.number("REGISTRY_MAX_REQUEST_BYTES", 65_536, 1024, 4_194_304),
    )
    _check_database_url(settings.database_url)
    _check_broker_url(settings.broker_url)
    return settings


def split_secrets(environ: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the environment without the variables that contain a secret, and those variables."""
    variables = {PREFIX + name for name in SECRETS}
    others = {name: value for name, value in environ.items() if name not in variables}
    return others, {name: value for name, value in environ.items() if name in variables}


def names() -> list[str]:
    """Return the name of every variable, without the `_FILE` forms of secrets."""
    return [PREFIX + field.name.upper() for field in fields(Settings)]


class _Values:
    """The given variables by name without prefix; each method reads one type or raises `SettingsError`."""

    def __init__(self, given: Mapping[str, str]) -> None:
        self._given = given

    def optional(self, name: str) -> str | None:
        value = self._given.get(name)
        if value is not None and not value:
            _refuse(name, "is set but empty; unset it or give it a value")
        return value

    def text(self, name: str, default: str) -> str:
        return self.optional(name) or default

    def number(self, name: str, default: int, lowest: int, highest: int) -> int:
        text = self.optional(name)
        if text is None:
            return default
        if not re.fullmatch(r"\d{1,9}", text, re.ASCII) or not lowest <= int(text) <= highest:
            _refuse(name, f"must be a whole number from {lowest} to {highest}")
        return int(text)

    def optional_number(self, name: str, lowest: int, highest: int) -> int | None:
        return None if self.optional(name) is None else self.number(name, lowest, lowest, highest)

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        text = self.text(name, default)
        if text not in choices:
            _refuse(name, f"must be one of {', '.join(choices)}")
        return text

    def flag(self, name: str, *, default: bool) -> bool:
        return self.choice(name, "true" if default else "false", ("true", "false")) == "true"

    def bind(self, name: str, default: str) -> str:
        text = self.text(name, default)
        match = _BIND.fullmatch(text)
        if not match or int(match["port"]) > 65_535:  # noqa: PLR2004 - the highest TCP port
            _refuse(name, "must be ADDRESS:PORT, such as 127.0.0.1:8080 or [::1]:8080")
        return text

    def networks(self, name: str) -> tuple[Network, ...]:
        text = self.optional(name)
        try:
            return parse_networks(text) if text else ()
        except ValueError:
            _refuse(name, "must be addresses or networks, separated by commas, such as 127.0.0.1,10.0.0.0/8")

    def password_policy(self, name: str) -> PasswordPolicy:
        text = self.optional(name)
        if text is None:
            return PasswordPolicy()
        known = [field.name for field in fields(PasswordPolicy)]
        try:
            given: Any = json.loads(text)
        except (ValueError, RecursionError):
            _refuse(name, "must be a JSON object")
        if not isinstance(given, dict) or not set(given) <= set(known):
            _refuse(name, f"must be a JSON object with {', '.join(known)}")
        if not all(type(count) is int and 0 <= count <= 72 for count in given.values()):  # noqa: PLR2004 - bcrypt's limit
            _refuse(name, "must have whole numbers from 0 to 72")
        return PasswordPolicy(**given)


def _read(environ: Mapping[str, str]) -> _Values:
    given: dict[str, str] = {}
    known = {name.removeprefix(PREFIX) for name in names()}
    for variable, value in environ.items():
        if not variable.startswith(PREFIX):
            continue
        name = variable.removeprefix(PREFIX)
        plain = name.removesuffix("_FILE")
        if name != plain and plain in SECRETS:
            if PREFIX + plain in environ:
                _refuse(plain, f"is set twice, also as {variable}")
            given[plain] = _secret_from_file(variable, Path(value))
        elif name in known:
            given[name] = value
        else:
            raise SettingsError(f"{variable} is not a setting of authsvc; docs/settings.md lists all settings")
    return _Values(given)


def _secret_from_file(variable: str, path: Path) -> str:
    try:
        return path.read_text().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{variable}: cannot read {path}: {type(error).__name__}") from None


def _check_database_url(url: str) -> None:
    if not re.match(r"sqlite:///.|postgres(ql)?://.", url):
        _refuse("DATABASE_URL", "must be sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME")


def _check_broker_url(url: str | None) -> None:
    if url is not None and not re.fullmatch(r"mqtts?://[^:@/\s]+:[^@/\s]+@[^@/\s]+", url):
        _refuse("BROKER_URL", "must be mqtt://USER:PASSWORD@HOST[:PORT] or mqtts://...")


def _refuse(name: str, what: str) -> NoReturn:
    # The message omits the value, which may be a secret in the wrong variable.
    raise SettingsError(f"{PREFIX}{name} {what}")

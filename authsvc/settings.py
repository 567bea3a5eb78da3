"""The settings, read from environment variables; an unknown or malformed variable is an error."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping  # noqa: TC003 - `get_type_hints` reads it
from dataclasses import asdict, dataclass, fields
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, NoReturn, get_type_hints

from authsvc.addresses import Network, is_loopback, parse_networks
from authsvc.credentials.passwords import PasswordPolicy
from authsvc.credentials.usernames import ROLE_NAME, RegistrationNames
from authsvc.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

PREFIX = "AUTHSVC_"
SECRETS = (
    *("ADMIN_PASSWORD", "WEBHOOK_SECRET", "DATABASE_URL", "CA_KEY_PASSPHRASE", "BROKER_URL", "SMTP_URL"),
    *("OIDC_CLIENT_SECRET", "LDAP_BIND_PASSWORD"),
)
_SMTP_URL = re.compile(
    r"(?P<scheme>smtp|smtps|smtp\+starttls)://"
    r"(?P<user>[^:@/\s]+:[^:@/\s]+@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:@/\s]+)(?::[0-9]{1,5})?/?"
)
_HTTP_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:@/?#\s]+)(?::[0-9]{1,5})?(?:/[^?#\s]*)?"
)
_LDAP_URL = re.compile(
    r"(?P<scheme>ldaps?|ldap\+starttls)://(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:@/?#\s]+)(?::[0-9]{1,5})?/?"
)
MAIL_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*")
# Kubernetes sets these for a service named `authsvc` in each pod of its namespace.
_BY_KUBERNETES = re.compile(
    r"AUTHSVC_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_TCP(_PROTO|_PORT|_ADDR)?|(?P<port>PORT))"
)
# Settings that mean nothing without others.
_NEEDED_WITH = {
    "OIDC_ISSUER": ("OIDC_CLIENT_ID", "OIDC_ROLES"),
    "OIDC_CLIENT_ID": ("OIDC_ISSUER",),
    "LDAP_URL": ("LDAP_USER_BASE", "LDAP_ROLES"),
    "LDAP_BIND_DN": ("LDAP_URL", "LDAP_BIND_PASSWORD"),
    "LDAP_USER_BASE": ("LDAP_URL",),
}
_LOG_LEVELS = {level: level for level in ("debug", "info", "warning", "error")}


# The parsers of values; each raises `ValueError` with the text that follows the setting's name in the error.


def _number(lowest: int, highest: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"\d{1,9}", text, re.ASCII) or not lowest <= int(text) <= highest:
            raise ValueError(f"must be a whole number from {lowest} to {highest}")
        return int(text)

    return parse


def _one_of(values: Mapping[str, Any]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        if text not in values:
            raise ValueError(f"must be one of {', '.join(values)}")
        return values[text]

    return parse


def _matching(pattern: str, form: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if not re.match(pattern, text):
            raise ValueError(f"must be {form}")
        return text

    return parse


def _absolute_path(text: str) -> Path:
    return Path(text).absolute()


def _bind(text: str) -> str:
    match = re.fullmatch(r"(?:\[[0-9a-fA-F:.]+\]|[^:\s]+):(?P<port>[0-9]{1,5})", text)
    if not match or int(match["port"]) > 65_535:  # noqa: PLR2004 - the highest TCP port
        raise ValueError("must be ADDRESS:PORT, such as 127.0.0.1:8080 or [::1]:8080")
    return text


def _smtp_url(text: str) -> str:
    match = _SMTP_URL.fullmatch(text)
    if not match:
        forms = "smtp://HOST[:PORT], smtps://USER:PASSWORD@HOST[:PORT] or smtp+starttls://..."
        raise ValueError(f"must be {forms}")
    if match["scheme"] == "smtp" and match["user"] and not is_loopback(match["host"].strip("[]")):
        raise ValueError("must begin with smtps:// or smtp+starttls:// so that its password is sent encrypted")
    return text


def _issuer(text: str) -> str:
    match = _HTTP_URL.fullmatch(text)
    if not match or (match["scheme"] == "http" and not is_loopback(match["host"].strip("[]"))):
        raise ValueError("must be the https:// URL of an OpenID provider; http:// only on localhost")
    return text


def _ldap_urls(text: str) -> tuple[str, ...]:
    urls = tuple(filter(None, re.split(r"[\s,]+", text)))
    for url in urls:
        match = _LDAP_URL.fullmatch(url)
        if not match:
            raise ValueError("must be ldaps://HOST[:PORT] or ldap+starttls://HOST[:PORT], several with commas between")
        if match["scheme"] == "ldap" and not is_loopback(match["host"].strip("[]")):
            raise ValueError("must begin with ldaps:// or ldap+starttls://, because it sends passwords")
    if not urls:
        raise ValueError("names no server")
    return urls


def _roles_of_groups(text: str) -> Mapping[str, tuple[str, ...]]:
    form = 'must be a JSON object of groups and their roles, such as {"plant-admins": ["admin"]}'
    try:
        given: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(form) from None
    if not isinstance(given, dict) or not given or not all(isinstance(names, list) for names in given.values()):
        raise ValueError(form)
    for group, names in given.items():
        if not names or not all(isinstance(name, str) and ROLE_NAME.fullmatch(name) for name in names):
            raise ValueError(f"must name at least one role for the group {group[:100]!r}")
    return {group: tuple(names) for group, names in given.items()}


def _mail_address(text: str) -> str:
    if not MAIL_ADDRESS.fullmatch(text):
        raise ValueError("must be a mail address, such as authsvc@plant.example")
    return text


def _networks(text: str) -> tuple[Network, ...]:
    try:
        return parse_networks(text)
    except ValueError:
        raise ValueError("must be addresses or networks, separated by commas, such as 127.0.0.1,10.0.0.0/8") from None


def _password_policy(text: str) -> PasswordPolicy:
    known = [field.name for field in fields(PasswordPolicy)]
    try:
        given: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("must be a JSON object") from None
    if not isinstance(given, dict) or not set(given) <= set(known):
        raise ValueError(f"must be a JSON object with {', '.join(known)}")
    if not all(type(count) is int and 0 <= count <= 72 for count in given.values()):  # noqa: PLR2004 - bcrypt's limit
        raise ValueError("must have whole numbers from 0 to 72")
    return PasswordPolicy(**given)


class Lifetime(NamedTuple):
    """The lifetime of a browser session: `idle` since its last use, `absolute` since its start."""

    idle: timedelta
    absolute: timedelta


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of the service; `docs/settings.md` describes each one.

    The annotation of a setting names the parser of its variable; without a parser, the value is the text.
    """

    data_dir: Annotated[Path, _absolute_path]
    database_url: Annotated[
        str, _matching(r"sqlite:///.|postgres(ql)?://.", "sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME")
    ]
    admin_password: str | None = None
    webhook_secret: str | None = None
    bind: Annotated[str, _bind] = "127.0.0.1:8080"
    broker_bind: Annotated[str, _bind] = "127.0.0.1:8070"
    bcrypt_cost: Annotated[int, _number(4, 16)] = 10
    password_policy: Annotated[PasswordPolicy, _password_policy] = PasswordPolicy()  # noqa: RUF009 - frozen
    workers: Annotated[int, _number(1, 64)] = 1
    api_workers: Annotated[int, _number(1, 64)] = 1
    threads: Annotated[int, _number(2, 256)] = 16
    keep_foreign_hashes: Annotated[bool, _one_of({"yes": True, "no": False})] = False
    hash_workers: Annotated[int, _number(1, 64)] = 2
    hash_queue: Annotated[int, _number(1, 1_000_000)] = 10_000
    connect_budget_ms: Annotated[int, _number(0, 4000)] = 150
    credential_cache_entries: Annotated[int, _number(1, 10_000_000)] = 100_000
    answer_cache_entries: Annotated[int, _number(1, 10_000_000)] = 50_000
    policy_poll_ms: Annotated[int, _number(20, 1000)] = 200
    trusted_proxies: Annotated[tuple[Network, ...], _networks] = ()
    session_idle_minutes: Annotated[int, _number(1, 1440)] = 30
    session_hours: Annotated[int, _number(1, 720)] = 12
    connections_per_address: Annotated[int, _number(1, 65_536)] = 256
    wrong_passwords_per_minute: Annotated[int, _number(1, 1_000_000)] = 10
    token_max_days: Annotated[int | None, _number(1, 36_500)] = None
    tokens_per_minute: Annotated[int, _number(1, 1_000_000)] = 30
    second_factor: Annotated[str, _one_of({"optional": "optional", "required": "required"})] = "optional"
    local_sign_in: Annotated[str, _one_of({"anywhere": "anywhere", "loopback": "loopback"})] = "anywhere"
    oidc_issuer: Annotated[str | None, _issuer] = None
    oidc_client_id: str | None = None
    oidc_client_secret: str | None = None
    oidc_name: str | None = None
    oidc_scopes: Annotated[
        str, _matching(r"(?=(.* )?openid( |\Z))[\x21-\x7e ]+\Z", "scopes with openid among them")
    ] = "openid profile email"
    oidc_username_claim: str = "preferred_username"
    oidc_groups_claim: str = "groups"
    oidc_roles: Annotated[Mapping[str, tuple[str, ...]] | None, _roles_of_groups] = None
    oidc_max_age_days: Annotated[int, _number(1, 3650)] = 30
    oidc_ca_file: str | None = None
    ldap_url: Annotated[tuple[str, ...], _ldap_urls] = ()
    ldap_ca_file: str | None = None
    ldap_bind_dn: str | None = None
    ldap_bind_password: str | None = None
    ldap_user_base: str | None = None
    ldap_user_filter: Annotated[
        str, _matching(r"\(.*\{username\}.*\)\Z", "a filter with {username}, such as (uid={username})")
    ] = "(uid={username})"
    ldap_group_base: str | None = None
    ldap_roles: Annotated[Mapping[str, tuple[str, ...]] | None, _roles_of_groups] = None
    ldap_max_age_days: Annotated[int, _number(1, 3650)] = 30
    log_level: Annotated[str, _one_of(_LOG_LEVELS)] = "info"
    ca_key_passphrase: str | None = None
    certificate_days: Annotated[int, _number(1, 3650)] = 365
    crl_days: Annotated[int, _number(1, 365)] = 7
    renewal_overlap_hours: Annotated[int, _number(0, 8760)] = 24
    broker_url: Annotated[
        str | None,
        _matching(r"mqtts?://[^:@/\s]+:[^@/\s]+@[^@/\s]+\Z", "mqtt://USER:PASSWORD@HOST[:PORT] or mqtts://..."),
    ] = None
    broker_ca_file: str | None = None
    mutual_tls: Annotated[bool, _one_of({"yes": True, "no": False})] = False
    smtp_url: Annotated[str | None, _smtp_url] = None
    smtp_from: Annotated[str | None, _mail_address] = None
    notify_private: Annotated[bool, _one_of({"yes": True, "no": False})] = False
    registration_usernames: Annotated[RegistrationNames, _one_of({name.value: name for name in RegistrationNames})] = (
        RegistrationNames.RESTRICTED
    )
    registry_capture_while_locked: Annotated[bool, _one_of({"true": True, "false": False})] = True
    registry_pending_ttl_hours: Annotated[int, _number(1, 8760)] = 24
    registry_max_pending: Annotated[int, _number(1, 100_000)] = 1000
    registry_max_locked: Annotated[int, _number(1, 10_000)] = 200
    registry_attempts_per_minute: Annotated[int, _number(1, 10_000)] = 30
    registry_address_attempts_per_minute: Annotated[int, _number(1, 10_000)] = 120
    registry_names_per_minute: Annotated[int, _number(1, 10_000)] = 600
    registry_max_request_bytes: Annotated[int, _number(1024, 4_194_304)] = 65_536

    def __repr__(self) -> str:
        return "Settings(...)"  # a traceback must not show the secrets

    @property
    def run_dir(self) -> Path:
        """The sockets and announcements of the processes that run."""
        return self.data_dir / "run"

    @property
    def session_lifetime(self) -> Lifetime:
        return Lifetime(timedelta(minutes=self.session_idle_minutes), timedelta(hours=self.session_hours))


def from_environment(environ: Mapping[str, str]) -> Settings:
    """Return the settings of the `AUTHSVC_*` variables; `SettingsError` names an unknown or malformed one."""
    given = _read(environ)
    values: dict[str, Any] = {"data_dir": Path("data").absolute(), "hash_workers": os.cpu_count() or 1}
    for field, annotation in get_type_hints(Settings, include_extras=True).items():
        name = field.upper()
        if name not in given:
            continue
        if not given[name]:
            _refuse(name, "is set but empty; unset it or give it a value")
        (parse,) = getattr(annotation, "__metadata__", (str,))
        try:
            values[field] = parse(given[name])
        except ValueError as error:
            _refuse(name, str(error))
    for name, needed in _NEEDED_WITH.items():
        missing = [PREFIX + each for each in needed if name.lower() in values and each.lower() not in values]
        if missing:
            _refuse(name, f"needs {' and '.join(missing)} too")
    return Settings(**({"database_url": f"sqlite:///{values['data_dir']}/authsvc.db"} | values))


def split_secrets(environ: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the environment without the variables that contain a secret, and those variables."""
    variables = {PREFIX + name for name in SECRETS}
    others = {name: value for name, value in environ.items() if name not in variables}
    return others, {name: value for name, value in environ.items() if name in variables}


@dataclass(frozen=True, slots=True)
class ShownSetting:
    """A setting without its value if that is a secret; `value` is None also if the setting is not set."""

    name: str
    value: str | None
    secret: bool
    is_set: bool


def shown(settings: Settings) -> tuple[ShownSetting, ...]:
    """Return every setting as text, without the values that are or contain a secret."""
    return tuple(_shown(field.name.upper(), getattr(settings, field.name)) for field in fields(Settings))


def _shown(name: str, value: Any) -> ShownSetting:
    text = None if value is None else _as_text(value)
    # A URL can contain a password, whatever the setting is called.
    secret = name in SECRETS or bool(text and re.search(r"://[^/]*@", text))
    return ShownSetting(PREFIX + name, None if secret else text, secret, value is not None)


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, PasswordPolicy):
        return json.dumps(asdict(value))
    if isinstance(value, dict):
        return json.dumps(value)
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def names() -> list[str]:
    """Return the name of every variable, without the `_FILE` forms of secrets."""
    return [PREFIX + field.name.upper() for field in fields(Settings)]


def set_by_kubernetes(environ: Mapping[str, str]) -> list[str]:
    """Return the names of the variables that Kubernetes sets for a service named authsvc; they are no settings."""
    found = []
    for variable, value in environ.items():
        match = _BY_KUBERNETES.fullmatch(variable)
        if match and (not match["port"] or value.startswith("tcp://")):
            found.append(variable)
    return found


def _read(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the values of the variables by name without prefix; secrets also from the files of `*_FILE`."""
    given: dict[str, str] = {}
    known = {name.removeprefix(PREFIX) for name in names()}
    ignored = set_by_kubernetes(environ)
    for variable, value in environ.items():
        if not variable.startswith(PREFIX) or variable in ignored:
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
    return given


def _secret_from_file(variable: str, path: Path) -> str:
    try:
        return path.read_text().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{variable}: cannot read {path}: {type(error).__name__}") from None


def _refuse(name: str, what: str) -> NoReturn:
    # The message omits the value, which may be a secret in the wrong variable.
    raise SettingsError(f"{PREFIX}{name} {what}")

"""Updates a broker's `crlfile`, and optionally its `cafile`; runs beside the broker.

Mosquitto reads CRLs at its start and on SIGHUP. With a malformed CRL it accepts revoked certificates or exits, with an
expired one it refuses every client. So a fetched CRL is checked, written to a temporary file and read back before a
rename replaces the old file. If the server does not answer, or answers something else, the old file stays.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import requests
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from authsvc.errors import AuthsvcError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

log = structlog.get_logger()

_TIMEOUT_SECONDS = 15
_MAX_DOWNLOAD_SECONDS = 60
_MAX_BYTES = 64 * 1024 * 1024
"""The size of a CRL with a million certificates."""
_END = "-----END X509 CRL-----"


class SyncError(AuthsvcError):
    """A file could not be updated, which leaves it unchanged, or the broker could not be made to reload."""

    code = "crl-sync"


@dataclass(slots=True)
class SyncState:
    """What a run keeps for the next one.

    The digest of the CRLs that the broker was notified of, the issuers whose CRLs were skipped, and cached responses:
    path to ETag and text.
    """

    notified_digest: str = ""
    skipped_issuers: set[str] = field(default_factory=set)
    responses: dict[str, tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Target:
    """The server to fetch CRLs from, the files to write, and how to notify the broker: by process id or command.

    `ca_file` is only read, `ca_out` is written.
    """

    server: str
    out: Path
    ca_file: Path | None = None
    server_ca_file: Path | None = None
    pid_file: Path | None = None
    command: Sequence[str] = ()
    ca_out: Path | None = None
    state: SyncState = field(default_factory=SyncState, compare=False)


def sync(target: Target, now: datetime) -> bool:
    """Update the files, notify the broker of a new CRL, and return whether anything changed; raise `SyncError`.

    Most versions of Mosquitto read authorities only at their start, so a change of these is logged as a warning.
    """
    fetched = _fetch(target, "/pki/crl.pem")
    authorities = _read(target.ca_file) if target.ca_file else _fetch(target, "/pki/ca.pem")
    lists = _checked(fetched, _certificates(authorities), target.state, now)
    changed = target.ca_out is not None and _update_ca_file(target.ca_out, authorities)
    changed |= _replace(target.out, lists, _lists)
    return _notify(target, lists) or changed


def warn_before_expiry(out: Path, now: datetime) -> None:
    """Log a warning if the file is missing or has less than a quarter of its validity left."""
    try:
        lists = _lists(_read(out))
    except SyncError:
        log.warning("no revocation list yet; a broker with crlfile does not start without it", file=str(out))
        return
    for each in lists:
        ends = each.next_update_utc
        if ends is not None and ends - now < (ends - each.last_update_utc) / 4:
            log.warning(
                "the revocation list expires soon; the broker will then refuse every certificate", at=ends.isoformat()
            )


def _fetch(target: Target, path: str) -> str:
    verify: bool | str = str(target.server_ca_file) if target.server_ca_file else True
    url = target.server.rstrip("/") + path
    etag, known = target.state.responses.get(path, ("", ""))
    headers = {"If-None-Match": etag} if etag else {}
    try:
        with requests.get(url, headers=headers, timeout=_TIMEOUT_SECONDS, verify=verify, stream=True) as response:
            if response.status_code == 304 and etag:  # noqa: PLR2004
                return known
            if response.status_code != 200:  # noqa: PLR2004
                raise SyncError(f"{url} answers with status {response.status_code}")
            text = _body(response).decode()
            target.state.responses[path] = response.headers.get("ETag", ""), text
            return text
    except requests.RequestException as error:
        raise SyncError(f"{target.server} does not answer: {type(error).__name__}") from None
    except UnicodeDecodeError:
        raise SyncError(f"{url} does not answer with PEM") from None


def _body(response: requests.Response) -> bytes:
    """Return the response body; `SyncError` if it is larger than 64 MiB or takes longer than 60 s."""
    body = bytearray()
    deadline = monotonic() + _MAX_DOWNLOAD_SECONDS
    for part in response.iter_content(65_536):
        body += part
        if len(body) > _MAX_BYTES or monotonic() > deadline:
            raise SyncError("the server's response is too large or too slow")
    return bytes(body)


def _checked(fetched: str, issuers: list[x509.Certificate], state: SyncState, now: datetime) -> str:
    """Return the CRLs of these issuers as PEM; skip those of others, and raise `SyncError` if one is not valid."""
    checked = ""
    for each in _lists(fetched):
        name = each.issuer.rfc4514_string()
        named = [issuer for issuer in issuers if issuer.subject == each.issuer]
        if not named:
            if name not in state.skipped_issuers:
                log.warning("untrusted authority; copy its certificate here and restart the broker", issuer=name)
                state.skipped_issuers.add(name)
            continue
        if not any(each.is_signature_valid(issuer.public_key()) for issuer in named):  # type: ignore[arg-type]
            raise SyncError(f"the revocation list of {name} is not signed by this authority")
        if each.next_update_utc is None or each.next_update_utc <= now or each.last_update_utc > now:
            raise SyncError(f"the revocation list of {name} is not valid at this time; check the clocks")
        checked += each.public_bytes(Encoding.PEM).decode()
    if not checked:
        raise SyncError("there is no revocation list of a trusted authority")
    return checked


def _certificates(text: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        raise SyncError("the authorities' certificates cannot be read") from None


def _lists(text: str) -> list[x509.CertificateRevocationList]:
    parts = [part + _END for part in text.split(_END)[:-1]]
    try:
        lists = [x509.load_pem_x509_crl(part.encode()) for part in parts]
    except ValueError:
        raise SyncError("a revocation list cannot be read") from None
    if not lists or text.rpartition(_END)[2].strip():
        raise SyncError("a revocation list cannot be read")
    return lists


def _update_ca_file(path: Path, content: str) -> bool:
    is_first = not path.exists()
    changed = _replace(path, content, _certificates)
    if changed and not is_first:
        log.warning("the trusted authorities changed; restart the broker, a reload may not be enough", file=str(path))
    return changed


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SyncError(f"{path} cannot be read: {type(error).__name__}") from None


def _holds(path: Path, content: str) -> bool:
    try:
        return _read(path) == content
    except SyncError:
        return False


def _replace(path: Path, content: str, parse: Callable[[str], object]) -> bool:
    """Replace the file's content atomically and durably, and return whether it differed."""
    if _holds(path, content):
        return False
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise _not_written(path, error) from None
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w") as file:
            os.fchmod(descriptor, 0o644)  # the broker may run as another user, and the content is not secret
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        parse(_read(temporary))
        temporary.replace(path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise _not_written(path, error) from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return True


def _not_written(path: Path, error: OSError) -> SyncError:
    return SyncError(f"{path} cannot be written: {error.strerror or error}")


def _notify(target: Target, content: str) -> bool:
    """Make the broker reload unless it was notified of this content, by this process or an earlier one."""
    if not target.pid_file and not target.command:
        return False
    notified = target.out.with_name(f".{target.out.name}.told")
    digest = hashlib.sha256(content.encode()).hexdigest()
    if digest == target.state.notified_digest or _holds(notified, digest):
        return False
    try:
        if target.pid_file:
            _reload(target.pid_file)
        if target.command:
            subprocess.run(target.command, check=True, timeout=_TIMEOUT_SECONDS)  # noqa: S603 - configured by the operator
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise SyncError(f"the broker could not be made to reload: {type(error).__name__}") from None
    target.state.notified_digest = digest  # in case the file cannot be written
    _replace(notified, digest, str)
    return True


def _reload(pid_file: Path) -> None:
    """Send SIGHUP if the process handles it; a broker that is starting, or another process, would be terminated."""
    pid = int(_read(pid_file))
    if pid <= 0:
        raise ValueError("0 and negative numbers stand for process groups")
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        status = ""  # there is no such process, or no /proc; os.kill reports the former
    caught = re.search(r"^SigCgt:\s*([0-9a-f]+)$", status, re.MULTILINE)
    if caught and not int(caught[1], 16) & 1 << signal.SIGHUP - 1:
        raise SyncError(f"process {pid} does not handle SIGHUP: it is no broker, or the broker is still starting")
    os.kill(pid, signal.SIGHUP)

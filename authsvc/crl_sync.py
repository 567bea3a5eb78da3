"""Keeps a broker's `crlfile` fresh, run beside the broker.

Mosquitto reads the file at its start and on SIGHUP. A malformed one makes it accept revoked certificates or exit, one
that ran out makes it refuse everybody. So whatever is fetched is read back and checked before it takes the old one's
place, by a rename; a server that is away leaves the old file alone.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import requests
import structlog
from cryptography import x509

from authsvc.errors import AuthsvcError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

log = structlog.get_logger()

_TIMEOUT_SECONDS = 15
_END = "-----END X509 CRL-----"


class SyncError(AuthsvcError):
    """The file could not be brought up to date this time; it is as it was."""

    code = "crl-sync"


@dataclass(frozen=True, slots=True)
class Target:
    """Where the list comes from, where it goes, and how the broker is told: by its process id or by a command."""

    server: str
    out: Path
    ca_file: Path | None = None
    server_ca_file: Path | None = None
    pid_file: Path | None = None
    command: Sequence[str] = ()


def sync(target: Target, now: datetime) -> bool:
    """Bring the file up to date and tell the broker if that changed it; say whether it did. `SyncError` otherwise."""
    fetched = _fetch(target, "/pki/crl.pem")
    authorities = target.ca_file.read_text() if target.ca_file else _fetch(target, "/pki/ca.pem")
    _check(fetched, authorities, now)
    changed = not target.out.exists() or target.out.read_text() != fetched
    if changed:
        _replace(target.out, fetched)
    told = _tell(target, fetched)
    return changed or told


def warn_before_expiry(out: Path, now: datetime) -> None:
    """Log a warning once the file has less than a quarter of its life left: a server that is away cannot renew it."""
    try:
        lists = _lists(out.read_text())
    except (OSError, SyncError):
        log.warning("no revocation list yet; a broker with crlfile does not start without it", file=str(out))
        return
    for each in lists:
        ends = each.next_update_utc
        if ends is not None and ends - now < (ends - each.last_update_utc) / 4:
            log.warning(
                "the revocation list runs out; the broker will then refuse every certificate", at=ends.isoformat()
            )


def _fetch(target: Target, path: str) -> str:
    verify: bool | str = str(target.server_ca_file) if target.server_ca_file else True
    try:
        answer = requests.get(target.server.rstrip("/") + path, timeout=_TIMEOUT_SECONDS, verify=verify)
    except requests.RequestException as error:
        raise SyncError(f"the server does not answer: {type(error).__name__}") from None
    if answer.status_code != 200:  # noqa: PLR2004
        raise SyncError(f"{path} was answered {answer.status_code}")
    return answer.text


def _check(lists: str, authorities: str, now: datetime) -> None:
    try:
        issuers = x509.load_pem_x509_certificates(authorities.encode())
    except ValueError:
        raise SyncError("the authorities' certificates cannot be read") from None
    for each in _lists(lists):
        signed = any(
            issuer.subject == each.issuer and each.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]
            for issuer in issuers
        )
        if not signed:
            raise SyncError("a revocation list is not signed by an authority that is trusted")
        if each.next_update_utc is None or each.next_update_utc <= now or each.last_update_utc > now:
            raise SyncError("a revocation list is not valid at this time")


def _lists(text: str) -> list[x509.CertificateRevocationList]:
    parts = [part + _END for part in text.split(_END)[:-1]]
    try:
        lists = [x509.load_pem_x509_crl(part.encode()) for part in parts]
    except ValueError:
        raise SyncError("a revocation list cannot be read") from None
    if not lists or text.rpartition(_END)[2].strip():
        raise SyncError("a revocation list cannot be read")
    return lists


def _replace(out: Path, content: str) -> None:
    """Put the content in place of the file, whole and durable or not at all."""
    unfinished = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        with unfinished.open("w") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        _lists(unfinished.read_text())
        unfinished.replace(out)
        _sync_directory(out.parent)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise SyncError(f"{out} cannot be written: {error.strerror or error}") from None


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _tell(target: Target, content: str) -> bool:
    """Tell the broker of a list that it was not told of, also after this process died in between."""
    if not target.pid_file and not target.command:
        return False
    told = target.out.with_name(f".{target.out.name}.told")
    digest = hashlib.sha256(content.encode()).hexdigest()
    if told.exists() and told.read_text() == digest:
        return False
    _signal(target)
    told.write_text(digest)
    return True


def _signal(target: Target) -> None:
    try:
        if target.pid_file:
            os.kill(int(target.pid_file.read_text()), signal.SIGHUP)
        if target.command:
            subprocess.run(target.command, check=True, timeout=_TIMEOUT_SECONDS)  # noqa: S603 - the operator's
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise SyncError(f"the broker could not be told to reload: {type(error).__name__}") from None

"""Keeps a broker's `crlfile` fresh, and its `cafile` if wanted; run beside the broker.

Mosquitto reads the lists at its start and on SIGHUP. A malformed one makes it accept revoked certificates or exit, one
that ran out makes it refuse everybody. So whatever is fetched is read back and checked before it takes the old one's
place, by a rename; a server that is away, and one that talks nonsense, leaves the old file alone.
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
_PATIENCE_SECONDS = 60
_MAX_BYTES = 64 * 1024 * 1024
"""A list of a million certificates."""
_END = "-----END X509 CRL-----"


class SyncError(AuthsvcError):
    """The file could not be brought up to date this time; it is as it was."""

    code = "crl-sync"


@dataclass(slots=True)
class Memory:
    """What one round leaves to the next.

    The digest of the lists that the broker was told of, whose lists were left out, and answers with their ETags.
    """

    told: str = ""
    left_out: set[str] = field(default_factory=set)
    answers: dict[str, tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Target:
    """Where the list comes from, where it goes, and how the broker is told: by its process id or by a command.

    `ca_file` is only read, `ca_out` is written.
    """

    server: str
    out: Path
    ca_file: Path | None = None
    server_ca_file: Path | None = None
    pid_file: Path | None = None
    command: Sequence[str] = ()
    ca_out: Path | None = None
    memory: Memory = field(default_factory=Memory, compare=False)


def sync(target: Target, now: datetime) -> bool:
    """Bring the files up to date and tell the broker of a new list; say whether anything was new. Or `SyncError`.

    Most versions of Mosquitto read new authorities at their start alone, so of these a warning is logged.
    """
    fetched = _fetch(target, "/pki/crl.pem")
    authorities = _read(target.ca_file) if target.ca_file else _fetch(target, "/pki/ca.pem")
    lists = _checked(fetched, _certificates(authorities), target.memory, now)
    changed = target.ca_out is not None and _bring_authorities(target.ca_out, authorities)
    changed |= _put(target.out, lists, _lists)
    return _tell(target, lists) or changed


def warn_before_expiry(out: Path, now: datetime) -> None:
    """Log a warning once the file has less than a quarter of its life left: a server that is away cannot renew it."""
    try:
        lists = _lists(_read(out))
    except SyncError:
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
    url = target.server.rstrip("/") + path
    etag, known = target.memory.answers.get(path, ("", ""))
    asked = {"If-None-Match": etag} if etag else {}
    try:
        with requests.get(url, headers=asked, timeout=_TIMEOUT_SECONDS, verify=verify, stream=True) as answer:
            if answer.status_code == 304 and etag:  # noqa: PLR2004
                return known
            if answer.status_code != 200:  # noqa: PLR2004
                raise SyncError(f"{path} was answered {answer.status_code}")
            text = _body(answer).decode()
            target.memory.answers[path] = answer.headers.get("ETag", ""), text
            return text
    except requests.RequestException as error:
        raise SyncError(f"the server does not answer: {type(error).__name__}") from None
    except UnicodeDecodeError:
        raise SyncError(f"{path} was answered with something else than PEM") from None


def _body(answer: requests.Response) -> bytes:
    """Return what was sent, unless that takes too much memory or time."""
    body = bytearray()
    deadline = monotonic() + _PATIENCE_SECONDS
    for part in answer.iter_content(65_536):
        body += part
        if len(body) > _MAX_BYTES or monotonic() > deadline:
            raise SyncError("the server's answer does not end")
    return bytes(body)


def _checked(fetched: str, issuers: list[x509.Certificate], memory: Memory, now: datetime) -> str:
    """Return the lists of these authorities, every one of them good; those of others a broker has no use for."""
    checked = ""
    for each in _lists(fetched):
        named = [issuer for issuer in issuers if issuer.subject == each.issuer]
        if named:
            _check(each, named, now)
            checked += each.public_bytes(Encoding.PEM).decode()
        else:
            _warn_once(memory, each.issuer.rfc4514_string())
    if not checked:
        raise SyncError("there is no revocation list of an authority that is trusted")
    return checked


def _check(each: x509.CertificateRevocationList, issuers: list[x509.Certificate], now: datetime) -> None:
    if not any(each.is_signature_valid(issuer.public_key()) for issuer in issuers):  # type: ignore[arg-type]
        raise SyncError("a revocation list is not signed by the authority that it names")
    if each.next_update_utc is None or each.next_update_utc <= now or each.last_update_utc > now:
        raise SyncError("a revocation list is not valid at this time")


def _warn_once(memory: Memory, issuer: str) -> None:
    if issuer not in memory.left_out:
        log.warning("an authority is not trusted here; bring its certificate and restart the broker", issuer=issuer)
        memory.left_out.add(issuer)


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


def _bring_authorities(path: Path, content: str) -> bool:
    is_first = not path.exists()
    changed = _put(path, content, _certificates)
    if changed and not is_first:
        log.warning("other authorities are trusted now; restart the broker, a reload may not do", file=str(path))
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


def _put(path: Path, content: str, parse: Callable[[str], object]) -> bool:
    """Put the content in place of the file, whole and durable or not at all; say whether the file held another."""
    if _holds(path, content):
        return False
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise _not_written(path, error) from None
    unfinished = Path(name)
    try:
        _write(descriptor, content)
        parse(_read(unfinished))
        unfinished.replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        raise _not_written(path, error) from None
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
    return True


def _write(descriptor: int, content: str) -> None:
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(descriptor, 0o644)  # the broker may run as somebody else, and nothing in it is secret
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _not_written(path: Path, error: OSError) -> SyncError:
    return SyncError(f"{path} cannot be written: {error.strerror or error}")


def _tell(target: Target, content: str) -> bool:
    """Tell the broker of a list that it was not told of, also after this process died in between."""
    if not target.pid_file and not target.command:
        return False
    note = target.out.with_name(f".{target.out.name}.told")
    digest = hashlib.sha256(content.encode()).hexdigest()
    if digest == target.memory.told or _holds(note, digest):
        return False
    _signal(target)
    target.memory.told = digest  # should it not be possible to write it down
    _put(note, digest, str)
    return True


def _signal(target: Target) -> None:
    try:
        if target.pid_file:
            _reload(_pid_in(target.pid_file))
        if target.command:
            subprocess.run(target.command, check=True, timeout=_TIMEOUT_SECONDS)  # noqa: S603 - the operator's
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise SyncError(f"the broker could not be told to reload: {type(error).__name__}") from None


def _pid_in(file: Path) -> int:
    number = int(_read(file))
    if number <= 0:
        raise ValueError("0 and below stand for whole groups of processes")
    return number


def _reload(pid: int) -> None:
    """Send SIGHUP, unless it would end the process: a broker that only starts, or another that has its number now."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        status = ""  # no such process, or no such file system; the signal will tell
    caught = re.search(r"^SigCgt:\s*([0-9a-f]+)$", status, re.MULTILINE)
    if caught and not int(caught[1], 16) & 1 << signal.SIGHUP - 1:
        raise SyncError(f"process {pid} is no broker that could reload, or not yet")
    os.kill(pid, signal.SIGHUP)

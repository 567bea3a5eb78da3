"""A server with configurable revocation lists, and a reader that validates the file on disk."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Self

from cryptography import x509

from authsvc.pki import ca
from authsvc.pki.ca import CertificateAuthority, CrlEntry, RevocationReason

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_END = "-----END X509 CRL-----\n"
_MIN_READS = 20


def new_authority(name: str = "ours") -> CertificateAuthority:
    return CertificateAuthority(*ca.new_authority(name, datetime.now(UTC), 30, None))


def new_list(
    authority: CertificateAuthority, number: int = 1, revoked: int = 0, valid: tuple[float, float] = (0, 7)
) -> str:
    """Return a revocation list with this many entries, valid from and until the given numbers of days from now."""
    now = datetime.now(UTC)
    entries = [CrlEntry(f"{serial:x}", now, RevocationReason.UNSPECIFIED) for serial in range(1, revoked + 1)]
    begins, ends = (now + timedelta(days=days) for days in valid)
    return authority.revocation_list(entries, number, begins, ends)


def number_in(text: str) -> int:
    """Return the CRL number of the first list in a file."""
    parsed = x509.load_pem_x509_crl(text.encode())
    return parsed.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def crl_error(lists: str, authorities: str) -> str | None:
    """Return why a broker that trusts these authorities would reject the lists, or None if they are valid."""
    parts = [part + _END for part in lists.split(_END)]
    if len(parts) == 1 or parts.pop() != _END:
        return "is not a complete list"
    trusted = x509.load_pem_x509_certificates(authorities.encode())
    for each in map(x509.load_pem_x509_crl, (part.encode() for part in parts)):
        if not any(each.is_signature_valid(issuer.public_key()) for issuer in trusted):  # type: ignore[arg-type]
            return "is signed by another authority"
        assert each.next_update_utc
        if not each.last_update_utc <= datetime.now(UTC) < each.next_update_utc:
            return "is not valid now"
    return None


class Reader:
    """Reads a file repeatedly during the block; the block fails if the file ever was an invalid list."""

    def __init__(self, file: Path, authorities: str) -> None:
        self.numbers: set[int] = set()
        self.errors: list[str] = []
        self._reads = 0
        self._file, self._authorities = file, authorities
        self._read_often = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._read_often.wait(10)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        if kind is None:
            assert self.errors == []

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._reads += 1
            try:
                text = self._file.read_text()
                wrong = crl_error(text, self._authorities)
                self.numbers.add(number_in(text))
            except (OSError, ValueError) as error:
                wrong = repr(error)
            if wrong:
                self.errors.append(wrong)
            if self._reads >= _MIN_READS:
                self._read_often.set()


class ListServer(ThreadingHTTPServer):
    """Serves `/pki/crl.pem` and `/pki/ca.pem` with configurable answers inside its `with` block.

    An answer is a text, bytes, several parts, or a status only. It can have an ETag.
    """

    daemon_threads = True

    def __init__(self, authority: CertificateAuthority | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.authority = authority or new_authority()
        self.lists: str | bytes | int | Iterable[bytes] = new_list(self.authority)
        self.authorities: str = self.authority.certificate_pem
        self.etag = ""
        self.conditional_requests = 0
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: ListServer

    def do_GET(self) -> None:
        answer = self.server.lists if self.path == "/pki/crl.pem" else self.server.authorities
        if self.server.etag and self.headers["If-None-Match"] == self.server.etag:
            self.server.conditional_requests += 1
            answer = 304
        self.send_response(answer if isinstance(answer, int) else 200)
        if self.server.etag:
            self.send_header("ETag", self.server.etag)
        self.end_headers()
        self._send(answer)

    def _send(self, answer: str | bytes | int | Iterable[bytes]) -> None:
        if isinstance(answer, str):
            answer = answer.encode()
        parts = [answer] if isinstance(answer, bytes) else [] if isinstance(answer, int) else answer
        try:
            for part in parts:
                self.wfile.write(part)
        except ConnectionError:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass

"""An OpenID provider that answers whatever a test wants, to attack the service with."""

from __future__ import annotations

import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

if TYPE_CHECKING:
    from collections.abc import Callable

CLIENT_ID = "authsvc"


class HostileProvider:
    """The provider. `token` makes the ID token from the claims of a right answer; `metadata` is added."""

    def __init__(self) -> None:
        self.key = rsa.generate_private_key(65_537, 2048)
        self.metadata: dict[str, Any] = {}
        self.token: Callable[[dict[str, Any]], Any] = self.signed
        self.nonce = ""
        self.body: bytes | None = None
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(provider.document if "well-known" in self.path else {"keys": [provider.public_key()]})

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self._answer({"access_token": "x", "token_type": "Bearer", "id_token": provider.id_token()})

            def _answer(self, content: Any) -> None:
                body = json.dumps(content).encode() if provider.body is None else provider.body
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def document(self) -> dict[str, Any]:
        """The provider's metadata."""
        endpoints = {"authorization_endpoint": "/auth", "token_endpoint": "/token", "jwks_uri": "/keys"}
        return {
            "issuer": self.issuer,
            **{name: self.issuer + path for name, path in endpoints.items()},
            **self.metadata,
        }

    def public_key(self) -> dict[str, Any]:
        key: dict[str, Any] = RSAAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        return key | {"kid": "the key", "use": "sig", "alg": "RS256"}

    def public_pem(self) -> bytes:
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.key.public_key().public_bytes(serialization.Encoding.PEM, form)

    def id_token(self) -> Any:
        now = int(time.time())
        claims = {"iss": self.issuer, "sub": "1", "aud": CLIENT_ID, "iat": now, "exp": now + 60, "nonce": self.nonce}
        return self.token({**claims, "preferred_username": "alice", "groups": ["plant-admins"]})

    def signed(self, claims: dict[str, Any], **header: Any) -> str:
        """Return a token with these claims and a right signature."""
        return jwt.encode(claims, self.key, "RS256", {"kid": "the key", **header})


def unsigned(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"") -> str:
    """Return a token put together by hand."""
    parts = (json.dumps(header).encode(), json.dumps(claims).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)

"""`authsvc certificates` and `authsvc ca`: client certificates and their authority."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12

from authsvc.accounts import users
from authsvc.cli import terminal
from authsvc.cli.console.groups import Group
from authsvc.cli.console.tables import print_table
from authsvc.credentials.usernames import validate_username
from authsvc.errors import Conflict
from authsvc.pki import authorities, ca, certificates, server_certificates
from authsvc.pki import csr as csrs
from authsvc.pki.authorities import signing_policy
from authsvc.pki.ca import RevocationReason
from authsvc.record_json import json_fields

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes


@click.group("certificates", cls=Group)
def group() -> None:
    """Issue, list and revoke client certificates, and issue server certificates for brokers."""


@group.command("list")
@click.option("--user", "username", default="", help="Only this user's.")
@click.option("--search", default="", help="Part of the username or serial.")
@click.option("--status", type=click.Choice(["valid", "revoked", "expired"]))
@click.option(
    "--expiring", "days", type=click.IntRange(0), metavar="DAYS", help="Only valid ones that expire within DAYS days."
)
@terminal.paged
@terminal.as_json
def list_certificates(
    username: str, search: str, status: str | None, days: int | None, page: int, per_page: int, *, as_json: bool
) -> None:
    """List certificates, the next to expire first."""
    with terminal.opened():
        found = certificates.search(
            certificates.CertificateFilter(username, search, status or "", days), page, per_page
        )
    if as_json:
        terminal.print_page(found, _shown)
        return
    rows = (list(_shown(record).values())[:6] for record in found.items)
    print_table(("SERIAL", "USERNAME", "STATUS", "NOT AFTER", "REVOKED", "REASON"), rows)


@group.command()
@click.argument("serial")
def show(serial: str) -> None:
    """Show one certificate, as JSON.

    SERIAL is the serial, at least its first 4 digits, or a username that has a single valid certificate.
    """
    with terminal.opened():
        record = certificates.get(certificates.find(serial))
    terminal.print_json({**_shown(record), "certificate": record.certificate})


@group.command()
@click.argument("username")
@click.option("--csr", type=terminal.FILE, help="A CSR; without it the command generates a key.")
@click.option("--days", type=click.IntRange(1, certificates.MAX_DAYS))
@click.option(
    "--out", "directory", default=".", type=click.Path(file_okay=False, path_type=Path), help="Directory for the files."
)
@click.option("--p12", is_flag=True, help="Also write USERNAME.p12; the command prompts for its password.")
def issue(username: str, csr: Path | None, days: int | None, directory: Path, *, p12: bool) -> None:
    """Issue a certificate: write USERNAME.crt, ca.crt and, without --csr, USERNAME.key, readable by you alone.

    In names of files, other characters of USERNAME than letters, digits and _ . - are written as in a URL.
    """
    validate_username(username)
    csrs.check_common_name(username)
    stem = _file_stem(username)
    if csr and p12:
        raise click.UsageError("--p12 needs the private key, which a CSR does not contain; leave out --csr or --p12")
    directory.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    public_key = csrs.read(csr.read_text(), username).public_key if csr else key.public_key()
    password = click.prompt("Password of the .p12 file", hide_input=True, confirmation_prompt=True) if p12 else None
    secrets = {} if csr else {f"{stem}.key": ca.encrypt_key(key, None).encode()}
    for path in [directory / name for name in (*secrets, *([f"{stem}.p12"] if p12 else []))]:
        if path.exists():
            raise _file_exists(path)
    with terminal.opened() as settings:
        issued = users.issue_certificate(terminal.operator(), username, public_key, signing_policy(settings, days))
    if password:
        secrets[f"{stem}.p12"] = _pkcs12(key, issued, password)
    for name, content in secrets.items():
        _write_secret(directory / name, content)
    (directory / f"{stem}.crt").write_text(issued.record.certificate)
    (directory / "ca.crt").write_text(issued.ca_certificate)
    click.echo(f"{issued.record.serial} for {username}, valid until {terminal.spell_moment(issued.record.not_after)}")


@group.command("issue-server")
@click.option(
    "--host",
    "hosts",
    multiple=True,
    help="A host name or IP address by which clients reach the broker; may be repeated. [default: those of server.crt]",
)
@click.option("--days", type=click.IntRange(1, certificates.MAX_DAYS))
@click.option(
    "--out", "directory", default=".", type=click.Path(file_okay=False, path_type=Path), help="Directory for the files."
)
@click.option("--new-key", is_flag=True, help="Replace server.key; by default an existing key is kept.")
@click.option("--force", is_flag=True, help="Replace server.crt without a question.")
def issue_server(hosts: tuple[str, ...], days: int | None, directory: Path, *, new_key: bool, force: bool) -> None:
    """Issue a broker's server certificate: write server.key, server.crt and ca.crt.

    ca.crt has the trusted authorities: clients verify the broker with it, and it is the broker's cafile. To renew, run
    the command again and restart the broker. The earlier certificate stays valid until it expires or is revoked.
    """
    key_file, certificate_file = directory / "server.key", directory / "server.crt"
    if certificate_file.exists():
        current = _current_server_certificate(certificate_file)
        hosts = hosts or tuple(server_certificates.hosts_of(current))
        until = terminal.spell_moment(current.not_valid_after_utc)
        if not force:
            click.confirm(f"{certificate_file} is valid until {until}. Replace it?", abort=True)
    if not hosts:
        raise click.UsageError("--host is needed: a name or address by which clients reach the broker")
    directory.mkdir(parents=True, exist_ok=True)
    new = None if key_file.exists() and not new_key else ec.generate_private_key(ec.SECP256R1())
    public_key = csrs.read_public_key(_public_pem(new or _read_server_key(key_file)))
    with terminal.opened() as settings:
        issued = server_certificates.issue(terminal.operator(), hosts, public_key, signing_policy(settings, days))
        trusted = authorities.certificates_pem()
    if new:
        _replace(key_file, ca.encrypt_key(new, None), 0o600)
    _replace(directory / "ca.crt", trusted, 0o644)
    _replace(certificate_file, issued.record.certificate + _chain_of(issued), 0o644)
    certificate = ca.read_certificate(issued.record.certificate)
    until = terminal.spell_moment(issued.record.not_after)
    click.echo(
        f"{issued.record.serial} for {', '.join(server_certificates.hosts_of(certificate))}, valid until {until}"
    )


@group.command()
@click.argument("serial")
@click.option(
    "--reason",
    default=RevocationReason.UNSPECIFIED.value,
    type=click.Choice([reason.value for reason in RevocationReason]),
    show_default=True,
)
def revoke(serial: str, reason: str) -> None:
    """Revoke a certificate; the next revocation list has it.

    SERIAL is the serial, at least its first 4 digits, or a username that has a single valid certificate.
    """
    with terminal.opened():
        serial = certificates.find(serial)
        certificates.revoke(terminal.operator(), serial, RevocationReason(reason))
    click.echo(f"{serial} revoked")


@click.group("ca", cls=Group)
def ca_group() -> None:
    """Show, replace or import the certificate authority."""


@ca_group.command("show")
@terminal.as_json
def show_authorities(*, as_json: bool) -> None:
    """List the trusted authorities; the first one signs."""
    with terminal.opened():
        found = authorities.records()
    names = ("subject", "notAfter", "retiresAt", "crlNumber", "crlNextUpdate")
    shown = [{name: "" if each[name] is None else each[name] for name in names} for each in map(json_fields, found)]
    if as_json:
        terminal.print_json(shown)
    else:
        columns = ("SUBJECT", "NOT AFTER", "RETIRES", "CRL", "NEXT CRL")
        print_table(columns, (list(each.values()) for each in shown))


@ca_group.command()
@click.option(
    "--overlap-days",
    default=365,
    type=click.IntRange(0, 3650),
    show_default=True,
    help="Days for which the old authority stays trusted.",
)
def rotate(overlap_days: int) -> None:
    """Create a new authority that signs from now on; the old one stays trusted during the overlap."""
    with terminal.opened() as settings:
        authorities.rotate(terminal.operator(), settings.ca_key_passphrase, timedelta(days=overlap_days))
    click.echo("new authority created; fetch /pki/ca.pem again for each broker's cafile")


@ca_group.command("import")
@click.option("--certificate", required=True, type=terminal.FILE)
@click.option("--key", required=True, type=terminal.FILE)
@click.option("--chain", type=terminal.FILE, help="PEM certificates from the issuer up to the root.")
@click.option("--key-passphrase-file", type=terminal.FILE)
@click.option("--overlap-days", default=365, type=click.IntRange(0, 3650), show_default=True)
def import_authority(
    certificate: Path, key: Path, chain: Path | None, key_passphrase_file: Path | None, overlap_days: int
) -> None:
    """Sign from now on with your own authority: a root, or an intermediate with its chain."""
    given = key_passphrase_file.read_text().rstrip("\r\n") if key_passphrase_file else None
    with terminal.opened() as settings:
        authorities.import_authority(
            terminal.operator(),
            certificate.read_text(),
            chain.read_text() if chain else "",
            key.read_text(),
            given,
            settings.ca_key_passphrase,
            timedelta(days=overlap_days),
        )
    click.echo("imported; fetch /pki/ca.pem again for each broker's cafile")


COMMANDS = (group, ca_group)


def _shown(record: certificates.CertificateRecord) -> dict[str, Any]:
    found = json_fields(record) | {"status": record.status_at(datetime.now(UTC))}
    names = ("serial", "username", "status", "notAfter", "revokedAt", "reason", "notBefore", "fingerprint")
    return {name: found[name] for name in names}


def _current_server_certificate(path: Path) -> x509.Certificate:
    try:
        return ca.read_certificate(path.read_text())
    except ValueError:
        raise Conflict(f"{path} is not a certificate; move it away", "file-exists") from None


def _read_server_key(path: Path) -> PrivateKeyTypes:
    try:
        return serialization.load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError):
        raise Conflict(
            f"{path} is not a private key without a passphrase; move it away, or replace it with --new-key",
            "file-exists",
        ) from None


def _public_pem(key: PrivateKeyTypes) -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()


def _chain_of(issued: certificates.IssuedCertificate) -> str:
    """Return the intermediate authorities that a server has to send along; a self-signed root is not one of them."""
    chain = x509.load_pem_x509_certificates(issued.ca_certificate.encode())
    return "".join(ca.pem_of(each) for each in chain if each.issuer != each.subject)


def _replace(path: Path, content: str, mode: int) -> None:
    """Write a file in one step, so that a broker never reads half of it."""
    temporary = path.with_name(f".{path.name}.{token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
    temporary.replace(path)


def _pkcs12(key: ec.EllipticCurvePrivateKey, issued: certificates.IssuedCertificate, password: str) -> bytes:
    certificate = ca.read_certificate(issued.record.certificate)
    authority = ca.read_certificate(issued.ca_certificate)
    encryption = serialization.BestAvailableEncryption(password.encode())
    return pkcs12.serialize_key_and_certificates(
        issued.record.username.encode(), key, certificate, [authority], encryption
    )


def _file_exists(path: Path) -> Conflict:
    return Conflict(f"{path} exists and is not overwritten, because it may hold a key; move it away", "file-exists")


def _write_secret(path: Path, content: bytes) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise _file_exists(path) from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def _file_stem(username: str) -> str:
    """Return a username as the beginning of a file name, which has no slash and is not hidden."""
    quoted = quote(username, safe="")
    return f"%2E{quoted[1:]}" if quoted.startswith(".") else quoted

"""The gateway's certificate authority: how the forward proxy ends TLS for the hosts of its connections.

Guarantees:

- The authority's key is made at first start, is readable by its owner only and never leaves the process; leaf
  keys never touch a disk. The certificate is public (`ca.pem`).
- A leaf certificate names exactly one host (one DNS name or one address), serves TLS servers only, and lives
  seven days, dated one hour back for clients whose clock is behind.
- The authority's own certificate cannot sign other authorities (path length 0) and is good for TLS servers
  only. It carries no name constraints: they are fixed when a certificate is made, and connections come later;
  what may be signed is decided by which hosts connections claim.

Certificates follow RFC 5280 to the letter (`VERIFY_X509_STRICT`, the default since Python 3.13) and the
CA/Browser Forum's profile where clients check it, so that OpenSSL, Node and Go accept them.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
import ssl
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from narrows import ownerfile
from narrows.core.errors import ConfigError, Refusal

CA_DAYS = 3650
LEAF_DAYS = 7
BACKDATE = datetime.timedelta(hours=1)
RENEW_BEFORE = datetime.timedelta(days=1)
"""A cached context is made anew when its certificate has less than this to live."""
CACHE_SIZE = 1024

ROOTS = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Arch
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # Fedora, RHEL
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",  # Alpine, macOS
    "/opt/homebrew/etc/openssl@3/cert.pem",
    "/usr/local/etc/openssl@3/cert.pem",
)
"""Where systems keep their trusted roots as one PEM file, looked at when Python's OpenSSL knows none."""

_PEM_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----\s[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")


class CertificateAuthority:
    """Signs leaf certificates and keeps the TLS contexts that serve them. Used from one thread."""

    pem: bytes
    """The authority's certificate, for clients to trust."""

    def __init__(
        self,
        key: ec.EllipticCurvePrivateKey,
        certificate: x509.Certificate,
        *,
        cache_size: int = CACHE_SIZE,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.pem = certificate.public_bytes(serialization.Encoding.PEM)
        self._key = key
        self._certificate = certificate
        self._wall_ns = wall_ns
        self._cache_size = cache_size
        self._contexts: OrderedDict[str, tuple[ssl.SSLContext, int]] = OrderedDict()
        self._identifier = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
            certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        )

    def __repr__(self) -> str:
        return f"<CertificateAuthority {self._certificate.subject.rfc4514_string()}>"

    @classmethod
    def load_or_create(
        cls,
        keys_dir: Path,
        cert_path: Path,
        *,
        cache_size: int = CACHE_SIZE,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> CertificateAuthority:
        """The authority with its key in `keys_dir`/ca.key and its certificate `cert_path`, made if missing.

        If only the certificate is missing it is made again for the same key; clients that trust the old one
        trust the new. Raises ConfigError if the key is not owner-only, if the two do not belong together, if
        the certificate has expired, or if there is a certificate but no key.
        """
        key_path = keys_dir / "ca.key"
        try:
            key_pem = ownerfile.read(key_path)
        except FileNotFoundError:
            if cert_path.exists():
                raise ConfigError(
                    f"could not load the authority's key {key_path}",
                    f"it is missing, but its certificate {cert_path} is there",
                    f"restore the key, or remove {cert_path}: a new authority is made for clients to trust",
                ) from None
            ownerfile.create(key_path, _key_pem(ec.generate_private_key(ec.SECP256R1())))
            key_pem = ownerfile.read(key_path)
        key = _parse_key(key_pem, key_path)
        now = _utc(wall_ns())
        if not cert_path.exists():
            made = _authority_certificate(key, now).public_bytes(serialization.Encoding.PEM)
            ownerfile.create(cert_path, made, mode=0o644)
        certificate = _parse_certificate(cert_path, key, now)
        return cls(key, certificate, cache_size=cache_size, wall_ns=wall_ns)

    def context_for(self, host: str) -> ssl.SSLContext:
        """A server-side context whose certificate is for `host` (a DNS name or an address, in any case).

        Offers HTTP/1.1 only and TLS 1.2 at least. Cached; made anew before its certificate expires. Raises
        Refusal `host_invalid` for what cannot be named in a certificate.
        """
        now = self._wall_ns()
        cached = self._contexts.get(host)
        if cached is not None and now < cached[1]:
            self._contexts.move_to_end(host)
            return cached[0]
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = self._leaf(host, key, _utc(now))
        context = _context(_key_pem(key) + leaf.public_bytes(serialization.Encoding.PEM))
        renew = leaf.not_valid_after_utc - RENEW_BEFORE
        self._contexts[host] = (context, int(renew.timestamp()) * 1_000_000_000)
        self._contexts.move_to_end(host)
        if len(self._contexts) > self._cache_size:
            self._contexts.popitem(last=False)
        return context

    def _leaf(self, host: str, key: ec.EllipticCurvePrivateKey, now: datetime.datetime) -> x509.Certificate:
        name = _general_name(host)
        # The subject's common name holds 64 characters (RFC 5280 appendix A.1); clients go by the alternative
        # name.
        text = str(name.value)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text if len(text) <= 64 else "narrows")])
        until = min(now + datetime.timedelta(days=LEAF_DAYS), self._certificate.not_valid_after_utc)
        since = max(now - BACKDATE, self._certificate.not_valid_before_utc)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(since)
            .not_valid_after(until)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName([name]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(self._identifier, critical=False)
            .sign(self._key, SHA256())
        )


def write_bundle(path: Path, ca_pem: bytes) -> Path | None:
    """Write the system's trusted roots and `ca_pem` to `path` in one step, for AWS_CA_BUNDLE and its kin.

    The roots are those that Python's OpenSSL uses in this environment (so SSL_CERT_FILE counts), or else the
    first of `ROOTS`. Returns the file or directory they came from; None if none was found, and then the
    bundle trusts this gateway alone. Only certificates are copied. Raises ConfigError if `path` cannot be
    written.
    """
    paths = ssl.get_default_verify_paths()
    files = [Path(name) for name in (paths.cafile, paths.openssl_cafile, *ROOTS) if name]
    source: Path | None = None
    roots: list[bytes] = []
    for file in files:
        # Our own bundle of an earlier run is not a source: it would keep an authority alive that is gone.
        if file.is_file() and not (path.exists() and file.samefile(path)):
            roots = _PEM_CERTIFICATE.findall(file.read_bytes())
            if roots:
                source = file
                break
    if source is None and paths.capath and Path(paths.capath).is_dir():
        for file in sorted(Path(paths.capath).glob("*.[0-9]")):  # the hashed links of c_rehash
            roots += _PEM_CERTIFICATE.findall(file.read_bytes())
        source = Path(paths.capath) if roots else None
    ours = _PEM_CERTIFICATE.findall(ca_pem)
    # A chain of gateways, or a nested run, may have brought ours in already.
    unique = dict.fromkeys([*roots, *ours])
    ownerfile.replace(path, b"\n".join(unique) + b"\n", mode=0o644)
    return source


def _context(pem: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    # The ssl module loads keys from files only. A memory file is one that no disk and no other user ever
    # sees.
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("narrows-leaf", os.MFD_CLOEXEC)
        try:
            os.write(fd, pem)
            context.load_cert_chain(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)
    else:  # not Linux: an owner-only file for the moment of loading
        with tempfile.NamedTemporaryFile() as file:
            file.write(pem)
            file.flush()
            context.load_cert_chain(file.name)
    return context


def _authority_certificate(key: ec.EllipticCurvePrivateKey, now: datetime.datetime) -> x509.Certificate:
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    # The key's id in the name: in a bundle, the authorities of two gateways must not share one.
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Narrows"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"Narrows gateway CA {identifier.digest.hex()[:12]}"),
        ]
    )
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + datetime.timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        # On an authority, OpenSSL, Go and NSS read this as the only use its leaves may have.
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(identifier, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
            critical=False,
        )
        .sign(key, SHA256())
    )


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.DNSName | x509.IPAddress:
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        return x509.IPAddress(ipaddress.ip_address(bare))
    except ValueError:
        name = bare.lower().removesuffix(".")
    if len(name) <= 253 and all(map(_LABEL.fullmatch, name.split("."))):
        return x509.DNSName(name)
    raise Refusal(
        "the request was refused",
        "no certificate can be made for the host it names",
        "use a DNS name or an IP address in its plain form",
        code="host_invalid",
        status=400,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _parse_key(pem: bytes, path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        # Raised outside the except clause on purpose: a parser's error may quote what it parsed.
        raise ConfigError(
            f"refused the authority's key {path}",
            "it is not a P-256 private key in PEM form",
            "restore it from a backup",
        )
    return key


def _parse_certificate(path: Path, key: ec.EllipticCurvePrivateKey, now: datetime.datetime) -> x509.Certificate:
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        certificate.verify_directly_issued_by(certificate)
        ours = certificate.public_key() == key.public_key()
    except OSError as error:
        raise ConfigError(f"could not read {path}", error.strerror or "") from error
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound) as error:
        raise ConfigError(
            f"refused {path}",
            "it is not the certificate of an authority",
            "remove it: it is made again from the key",
        ) from error
    if not ours:
        raise ConfigError(
            f"refused {path}",
            "it does not belong to the key ca.key",
            "remove it: it is made again from the key; clients must then trust the new one",
        )
    if now >= certificate.not_valid_after_utc:
        raise ConfigError(
            f"refused {path}",
            f"it expired on {certificate.not_valid_after_utc:%Y-%m-%d}",
            "remove it and ca.key: a new authority is made; clients must then trust it",
        )
    return certificate


def _utc(wall_ns: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(wall_ns // 1_000_000_000, datetime.UTC)

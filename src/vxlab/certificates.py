"""The lab's certificate authority: who may talk to etcd on real hosts. The key signs once.

The certificates hold for ever, as far as X.509 goes: a host whose clock is wrong can still join,
and they end with the lab.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from vxlab.lab import Lab
from vxlab.steps import tls

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

#: RFC 5280, 4.1.2.5: a certificate without a well-defined end.
_NEVER = datetime(9999, 12, 31, 23, 59, 59)
_EVER = datetime(1970, 1, 1)


def make(lab: Lab) -> dict[str, Mapping[str, str]]:
    """A new authority's certificates and keys for every node of the lab.

    Returns:
        Per node, file name (see `vxlab.steps.tls`) -> PEM text.
    """
    ca_key = _key()
    ca = _certificate(f"vxlab {lab.name}", ca_key, None)
    made: dict[str, Mapping[str, str]] = {}
    for node in lab.nodes:
        texts = {tls.CA: _pem(ca)}
        texts |= _pair(tls.CLIENT, f"flanneld on {node.name}", ca, ca_key, ())
        if node.name == lab.etcd.node:
            addresses = (node.address.ip, IPv4Address("127.0.0.1"))
            texts |= _pair(tls.SERVER, f"etcd on {node.name}", ca, ca_key, addresses)
        made[node.name] = texts
    return made


def _key() -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _pair(
    names: tuple[str, str],
    who: str,
    ca: x509.Certificate,
    ca_key: EllipticCurvePrivateKey,
    addresses: tuple[IPv4Address, ...],
) -> dict[str, str]:
    from cryptography.hazmat.primitives import serialization as form

    key = _key()
    certificate = _certificate(who, key, (ca, ca_key), addresses)
    text = key.private_bytes(
        form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()
    ).decode()
    return {names[0]: _pem(certificate), names[1]: text}


def _pem(certificate: x509.Certificate) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM).decode()


def _certificate(
    who: str,
    key: EllipticCurvePrivateKey,
    issuer: tuple[x509.Certificate, EllipticCurvePrivateKey] | None,
    addresses: tuple[IPv4Address, ...] = (),
) -> x509.Certificate:
    """Sign a key; without an issuer, by itself: the authority's own (RFC 5280, 4.2.1)."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID as Usage
    from cryptography.x509.oid import NameOID

    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, who)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer[0].subject if issuer else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_EVER)
        .not_valid_after(_NEVER)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(_usage(authority=issuer is None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if issuer is not None:
        # etcd's server is a client as well: of its own gRPC gateway and of its peers.
        usage = [Usage.SERVER_AUTH, Usage.CLIENT_AUTH] if addresses else [Usage.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
        by = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer[1].public_key())
        builder = builder.add_extension(by, critical=False)
    if addresses:
        names = [x509.DNSName("localhost"), *(x509.IPAddress(a) for a in addresses)]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer[1] if issuer else key, hashes.SHA256())


def _usage(*, authority: bool) -> x509.KeyUsage:
    """The authority's key signs certificates, and all others sign what is said in a handshake."""
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )

"""Certificates that nobody trusts, made when they are needed."""

from __future__ import annotations

import datetime
from typing import Any


def pem_chain(kind: str = "es256") -> tuple[bytes, bytes]:
    """A certificate that can sign C2PA claims, with the root that vouches for it, and its key; PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    made = {"es256": lambda: ec.generate_private_key(ec.SECP256R1()), "es384": lambda: ec.generate_private_key(ec.SECP384R1())}
    made |= {"ps256": lambda: rsa.generate_private_key(65537, 2048), "ed25519": ed25519.Ed25519PrivateKey.generate}  # type: ignore[dict-item]
    root_key, key = ec.generate_private_key(ec.SECP256R1()), made[kind]()
    begin = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)

    def certificate(name: str, public: Any, *, ca: bool) -> Any:
        parts = [x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Nobody")]
        names = [x509.Name([*parts, x509.NameAttribute(x509.NameOID.COMMON_NAME, n)]) for n in (name, "root")]
        usage = dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only"), False)
        usage |= {"digital_signature": True, "key_cert_sign": ca, "crl_sign": ca, "decipher_only": False}
        builder = x509.CertificateBuilder(*names[::-1], public, x509.random_serial_number(), begin, begin + datetime.timedelta(days=30))
        builder = builder.add_extension(x509.BasicConstraints(ca, None), True).add_extension(x509.KeyUsage(**usage), True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
        builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), False)
        if not ca:
            builder = builder.add_extension(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
        return builder.sign(root_key, hashes.SHA256())

    chain = [certificate("signer", key.public_key(), ca=False), certificate("root", root_key.public_key(), ca=True)]
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in chain), private

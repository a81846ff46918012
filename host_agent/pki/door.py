"""The door's TLS made of files, and of certificates for whoever asks beforehand.

One set of settings (`http/tls`) for both: what is asked beforehand is what decides at the door.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from host_agent.errors import ConfigurationError
from host_agent.http.tls import ServerKey, TlsContext, mutual_tls, present
from host_agent.identity.files import read_linked
from host_agent.identity.names import extension_of


def load_certificates(data: bytes) -> Sequence[x509.Certificate]:
    """Return the certificates in `data` (PEM, or one in DER), at least one, in their order.

    Raises:
        ValueError: there is none, or one that cannot be read.
    """
    try:
        if b"-----BEGIN" in data:
            return x509.load_pem_x509_certificates(data)
        return [x509.load_der_x509_certificate(data)]
    except (ValueError, x509.InvalidVersion) as error:
        message = "it is not a certificate"
        raise ValueError(message) from error


def load_private_key(pem: bytes) -> ServerKey:
    """Return the private key in `pem`; of which kind is for OpenSSL to judge.

    Raises:
        ValueError: it is none, or encrypted: nobody is there to be asked for a password.
    """
    try:
        return cast("ServerKey", load_pem_private_key(pem, password=None))
    except (TypeError, ValueError, UnsupportedAlgorithm) as error:
        message = "the private key is not an unencrypted PEM key"
        raise ValueError(message) from error


def server_context(certificate: Path, private_key: Path, client_ca: Path) -> TlsContext:
    """Return fresh settings for the server side of mutual TLS 1.3.

    They never see a newer file: make other ones, and give them to the listener.

    Raises:
        ConfigurationError: a file cannot be read, is no certificate or key, or the two do not
            belong together. The key must not be encrypted.
    """
    faults: list[str] = []
    try:
        context = door_context(load_certificates(read_linked(client_ca)))
    except ValueError as error:
        reason = str(error) if str(client_ca) in str(error) else f"{client_ca}: {error}"
        faults.append(f"server.client_ca: {reason}.")
        context = mutual_tls(())  # only to look at the pair, too
    try:
        chain = load_certificates(read_linked(certificate))
        present(context, chain, load_private_key(read_linked(private_key)))
    except ValueError as error:
        fault = (
            f"server.certificate, server.private_key: {certificate} and {private_key} "
            f"cannot be used: {error}."
        )
        faults.insert(0, fault)
    if faults:
        raise ConfigurationError(faults)
    return context


def door_context(authorities: Sequence[x509.Certificate]) -> TlsContext:
    """Return the settings of the door, but for its own certificate.

    Raises:
        ValueError: OpenSSL cannot read one of `authorities`, or there is no CA among them.
    """
    context = mutual_tls(authorities)
    if not any(_is_ca(certificate) for certificate in authorities):
        message = "it holds no CA certificate"
        raise ValueError(message)
    return context


def _is_ca(certificate: x509.Certificate) -> bool:
    """Return whether it says so; what cannot be read is left to OpenSSL."""
    try:
        constraints = extension_of(certificate, x509.BasicConstraints)
    except ValueError:
        return True
    return constraints is not None and constraints.ca

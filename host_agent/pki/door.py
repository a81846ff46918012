"""The TLS settings of the door, made once for the door itself and for whoever asks beforehand.

TLS 1.3 only, a client certificate that our CA signed, no tickets, no compression. Whether that
certificate is revoked is not asked here: it is asked for every request, so that the refusal has a
body and a name, and bites on connections that are open already.
"""

import ssl
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from host_agent.errors import ConfigurationError
from host_agent.identity.files import read_linked


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


def server_context(
    certificate: Path, private_key: Path, client_ca: Path, *, protocols: Sequence[str]
) -> ssl.SSLContext:
    """Return a fresh context for the server side of mutual TLS 1.3.

    `protocols` are what ALPN offers. A context never sees a newer file: make another one, and give
    it to the listener.

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
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # only to look at the pair, too
    context.set_alpn_protocols(list(protocols))
    faults = [*filter(None, (_load_pair(context, certificate, private_key),)), *faults]
    if faults:
        raise ConfigurationError(faults)
    return context


def _load_pair(context: ssl.SSLContext, certificate: Path, private_key: Path) -> str | None:
    try:
        # Without a password given, OpenSSL would ask the terminal for one.
        context.load_cert_chain(certificate, private_key, password="")
    except (OSError, ValueError) as error:
        return (
            f"server.certificate, server.private_key: {certificate} and {private_key} "
            f"cannot be used: {_reason(error)}."
        )
    return None


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not in PEM form").lower().replace("_", " ")
    if isinstance(error, OSError):
        return error.strerror or "cannot be read"
    return str(error)


def door_context(authorities: Sequence[x509.Certificate]) -> ssl.SSLContext:
    """Return the server side of mutual TLS 1.3 as the door has it, but for its own certificate.

    Raises:
        ValueError: OpenSSL cannot read one of `authorities`, or there is no CA among them.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    context.num_tickets = 0
    try:
        context.load_verify_locations(
            cadata=b"".join(certificate.public_bytes(Encoding.DER) for certificate in authorities)
        )
    except (ssl.SSLError, ValueError) as error:
        message = "OpenSSL cannot read the certificate"
        raise ValueError(message) from error
    if not context.get_ca_certs():
        message = "it holds no CA certificate"
        raise ValueError(message)
    return context

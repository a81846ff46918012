"""What TLS tells of a connection: the ASGI TLS extension, and the names of failed handshakes."""

import ssl
import warnings
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from cryptography import x509

ALPN_PROTOCOLS = ("http/1.1",)
"""HTTP/1.1 is all that the door speaks. Who offers other protocols alone gets none selected."""
TLS_1_3 = 0x0304
_SUITES: Mapping[str, int] = {
    "TLS_AES_128_GCM_SHA256": 0x1301,
    "TLS_AES_256_GCM_SHA384": 0x1302,
    "TLS_CHACHA20_POLY1305_SHA256": 0x1303,
}
"""OpenSSL's names of the TLS 1.3 suites and their numbers (RFC 8446, appendix B.4)."""


class TlsRejection(StrEnum):
    """Why a connection ended before its handshake did: the closed set of a metric's label."""

    NO_CERTIFICATE = "no_certificate"
    UNKNOWN_CA = "unknown_ca"
    EXPIRED = "expired"
    BAD_CERTIFICATE = "bad_certificate"
    BAD_PROTOCOL = "bad_protocol"
    TIMEOUT = "timeout"
    PLAIN_HTTP = "plain_http"
    OTHER = "other"


def rejection(error: BaseException) -> TlsRejection:
    """Return why a handshake failed, from the exception that OpenSSL's error became."""
    if isinstance(error, TimeoutError):
        return TlsRejection.TIMEOUT
    if isinstance(error, ssl.SSLCertVerificationError):
        return _VERIFICATION.get(error.verify_code, TlsRejection.BAD_CERTIFICATE)
    if isinstance(error, ssl.SSLError):
        return _REASONS.get(error.reason or "", TlsRejection.OTHER)
    return TlsRejection.OTHER


def said_of_certificate(error: BaseException) -> str | None:
    """Return OpenSSL's sentence about the client's certificate, if that is why it failed."""
    return error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else None


_VERIFICATION: Mapping[int, TlsRejection] = {
    2: TlsRejection.UNKNOWN_CA,  # X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT
    7: TlsRejection.UNKNOWN_CA,  # X509_V_ERR_CERT_SIGNATURE_FAILURE: a CA of the same name
    10: TlsRejection.EXPIRED,  # X509_V_ERR_CERT_HAS_EXPIRED
    18: TlsRejection.UNKNOWN_CA,  # X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT
    19: TlsRejection.UNKNOWN_CA,  # X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN
    20: TlsRejection.UNKNOWN_CA,  # X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY
    21: TlsRejection.UNKNOWN_CA,  # X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE
    30: TlsRejection.UNKNOWN_CA,  # X509_V_ERR_AKID_SKID_MISMATCH
}
"""OpenSSL's verification results, from x509_vfy.h."""

_REASONS: Mapping[str, TlsRejection] = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": TlsRejection.NO_CERTIFICATE,
    "HTTP_REQUEST": TlsRejection.PLAIN_HTTP,
    "HTTPS_PROXY_REQUEST": TlsRejection.PLAIN_HTTP,
    "UNSUPPORTED_PROTOCOL": TlsRejection.BAD_PROTOCOL,
    "WRONG_VERSION_NUMBER": TlsRejection.BAD_PROTOCOL,
    "WRONG_SSL_VERSION": TlsRejection.BAD_PROTOCOL,
    "VERSION_TOO_LOW": TlsRejection.BAD_PROTOCOL,
    "UNKNOWN_PROTOCOL": TlsRejection.BAD_PROTOCOL,
    "TLSV1_ALERT_PROTOCOL_VERSION": TlsRejection.BAD_PROTOCOL,
}
"""OpenSSL's reason strings, from sslerr.h."""


def tls_extension(tls: ssl.SSLObject, client_der: bytes) -> dict[str, Any]:
    """Return the ASGI TLS extension (version 0.2) for an ended handshake.

    `client_cert_chain` holds the leaf only: Python tells no more of the chain before 3.13. The
    server's own certificate, which the application can read from its configuration, is None.
    """
    cipher = tls.cipher()
    return {
        "server_cert": None,
        "client_cert_chain": [ssl.DER_cert_to_PEM_cert(client_der)],
        "client_cert_name": _subject(client_der),
        "client_cert_error": None,
        "tls_version": TLS_1_3,
        "cipher_suite": None if cipher is None else _SUITES.get(cipher[0]),
    }


def _subject(der: bytes) -> str | None:
    """Return the subject as RFC 4514 text, or None where it cannot be read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cryptography warns of lengths that X.520 forbids
        try:
            return x509.load_der_x509_certificate(der).subject.rfc4514_string()
        except (ValueError, TypeError, x509.InvalidVersion):
            return None

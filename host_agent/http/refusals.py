"""Why a handshake comes to nothing: OpenSSL's reasons, and the few names that are counted.

pyOpenSSL tells numbers where a certificate is refused and has no call for their sentences, so
those that a client's chain can run into are here.
"""

from collections.abc import Mapping
from enum import StrEnum

SIGNATURE_FAILURE = 7
"""X509_V_ERR_CERT_SIGNATURE_FAILURE (x509_vfy.h): asked last, after all that concerns the chain."""


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


class HandshakeRefusedError(Exception):
    """A handshake that the server ended.

    `reason` is OpenSSL's. Where a certificate was refused, `verify_code` is the number of why and
    `depth` says which one: 0 the client's, 1 and more an authority above it.
    """

    def __init__(self, reason: str, *, verify_code: int | None = None, depth: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.verify_code = verify_code
        self.depth = depth

    @classmethod
    def of_certificate(cls, verify_code: int, depth: int) -> "HandshakeRefusedError":
        """Return the refusal of a certificate by its number."""
        reason = _SENTENCES.get(verify_code, f"X.509 verification error {verify_code}")
        return cls(reason, verify_code=verify_code, depth=depth)

    @property
    def rejection(self) -> TlsRejection:
        """Return the name that it is counted by."""
        if self.verify_code is not None:
            return _VERIFICATION.get(self.verify_code, TlsRejection.BAD_CERTIFICATE)
        return _REASONS.get(self.reason, TlsRejection.OTHER)

    def __str__(self) -> str:
        """Return the reason, and whose certificate it is about if it is not the client's."""
        return self.reason if self.depth == 0 else f"{self.reason} (an authority above it)"


_VERIFICATION: Mapping[int, TlsRejection] = {
    2: TlsRejection.UNKNOWN_CA,
    SIGNATURE_FAILURE: TlsRejection.UNKNOWN_CA,  # a CA of the same name
    10: TlsRejection.EXPIRED,
    18: TlsRejection.UNKNOWN_CA,
    19: TlsRejection.UNKNOWN_CA,
    20: TlsRejection.UNKNOWN_CA,
    21: TlsRejection.UNKNOWN_CA,
    30: TlsRejection.UNKNOWN_CA,
}

_REASONS: Mapping[str, TlsRejection] = {
    "peer did not return a certificate": TlsRejection.NO_CERTIFICATE,
    "http request": TlsRejection.PLAIN_HTTP,
    "https proxy request": TlsRejection.PLAIN_HTTP,
    "unsupported protocol": TlsRejection.BAD_PROTOCOL,
    "wrong version number": TlsRejection.BAD_PROTOCOL,
    "wrong ssl version": TlsRejection.BAD_PROTOCOL,
    "version too low": TlsRejection.BAD_PROTOCOL,
    "unknown protocol": TlsRejection.BAD_PROTOCOL,
    "tlsv1 alert protocol version": TlsRejection.BAD_PROTOCOL,
}
"""OpenSSL's reason strings (ssl_err.c)."""

_SENTENCES: Mapping[int, str] = {
    1: "unspecified certificate verification error",
    2: "unable to get issuer certificate",
    4: "unable to decrypt certificate's signature",
    6: "unable to decode issuer public key",
    SIGNATURE_FAILURE: "certificate signature failure",
    9: "certificate is not yet valid or the system clock is incorrect",
    10: "certificate has expired",
    13: "format error in certificate's notBefore field",
    14: "format error in certificate's notAfter field",
    18: "self-signed certificate",
    19: "self-signed certificate in certificate chain",
    20: "unable to get local issuer certificate",
    21: "unable to verify the first certificate",
    22: "certificate chain too long",
    24: "issuer certificate doesn't have a public key",
    25: "path length constraint exceeded",
    26: "unsuitable certificate purpose",
    27: "certificate not trusted",
    28: "certificate rejected",
    29: "subject issuer mismatch",
    30: "authority and subject key identifier mismatch",
    31: "authority and issuer serial number mismatch",
    32: "key usage does not include certificate signing",
    34: "unhandled critical extension",
    37: "invalid non-CA certificate (has CA markings)",
    39: "key usage does not include digital signature",
    40: "proxy certificates not allowed, please set the appropriate flag",
    41: "invalid or inconsistent certificate extension",
    42: "invalid or inconsistent certificate policy extension",
    43: "no explicit policy",
    45: "unsupported extension feature",
    46: "RFC 3779 resource not subset of parent's resources",
    47: "permitted subtree violation",
    48: "excluded subtree violation",
    49: "name constraints minimum and maximum not supported",
    51: "unsupported name constraint type",
    52: "unsupported or invalid name constraint syntax",
    53: "unsupported or invalid name syntax",
    55: "path loop",
    66: "EE certificate key too weak",
    67: "CA certificate key too weak",
    68: "CA signature digest algorithm too weak",
    70: "issuer certificate lookup error",
    76: "Cannot find certificate signature algorithm",
    77: "subject signature algorithm and issuer public key algorithm mismatch",
    78: "cert info signature and signature algorithm mismatch",
    79: "invalid CA certificate",
    80: "Path length invalid for non-CA cert",
    81: "Path length given without key usage keyCertSign",
    82: "Key usage keyCertSign invalid for non-CA cert",
    83: "Issuer name empty",
    84: "Subject name empty",
    85: "Missing Authority Key Identifier",
    86: "Missing Subject Key Identifier",
    87: "Empty Subject Alternative Name extension",
    88: "Subject empty and Subject Alt Name extension not critical",
    89: "Basic Constraints of CA cert not marked critical",
    90: "Authority Key Identifier marked critical",
    91: "Subject Key Identifier marked critical",
    92: "CA cert does not include key usage extension",
    93: "Using cert extension requires at least X509v3",
    94: "Certificate public key has explicit ECC parameters",
    102: "Empty Authority Key Identifier",
    103: "Authority Key Identifier issuer and serial number must be paired",
}
"""OpenSSL's verification results (x509_vfy.h) and what it says of them (x509_txt.c)."""

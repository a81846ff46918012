"""TLS of the door: its settings, and the server's side of one connection, in memory.

OpenSSL is the one that `cryptography` brings, for the door and for whoever asks beforehand whether
the door would take a certificate. TLS 1.3 only, a client certificate that our CA signed, no
compression, and nothing to resume. Whether the certificate is revoked is not asked here: it is
asked for every request, so that the refusal has a body and a name, and bites on connections that
are open already.
"""

import ssl
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from OpenSSL import SSL, crypto

from host_agent.http.refusals import HandshakeRefusedError

ALPN_PROTOCOLS: Final = (b"http/1.1",)
"""HTTP/1.1 is all that the door speaks. Who offers other protocols alone gets none selected."""
TLS_1_3: Final = 0x0304
_SUITES: Mapping[str, int] = {
    "TLS_AES_128_GCM_SHA256": 0x1301,
    "TLS_AES_256_GCM_SHA384": 0x1302,
    "TLS_CHACHA20_POLY1305_SHA256": 0x1303,
}
"""OpenSSL's names of the TLS 1.3 suites and their numbers (RFC 8446, appendix B.4)."""
_SECURITY_LEVEL: Final = b"DEFAULT:@SECLEVEL=2"
"""At least 112 bits for keys and signatures in a chain (SSL_CTX_set_security_level(3)).

It comes as a cipher list; the suites of TLS 1.3 are not in that list.
"""
_OPTIONS: Final = (
    SSL.OP_NO_COMPRESSION
    | SSL.OP_NO_RENEGOTIATION
    | SSL.OP_NO_TICKET
    | SSL.OP_CIPHER_SERVER_PREFERENCE
)
RECORD_BYTES: Final = 2**14
"""What one record holds at most (RFC 8446, 5.1)."""
_OUTPUT_BYTES: Final = 2 * RECORD_BYTES

TlsContext: TypeAlias = SSL.Context
"""The settings of a server. It takes no change once a connection was made with it."""

ServerKey: TypeAlias = (
    rsa.RSAPrivateKey
    | dsa.DSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
)
"""The keys that pyOpenSSL takes."""


def mutual_tls(authorities: Iterable[x509.Certificate]) -> TlsContext:
    """Return the settings of a server that trusts `authorities`, but for its own certificate.

    The groups are OpenSSL's, which begin with X25519MLKEM768, X25519 and P-256. A stateful ticket
    goes out all the same (there is no call against it), and names a session that is kept nowhere.

    Raises:
        ValueError: OpenSSL cannot read one of `authorities`.
    """
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_max_proto_version(SSL.TLS1_3_VERSION)
    context.set_options(_OPTIONS)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_cipher_list(_SECURITY_LEVEL)
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _judge)
    context.set_alpn_select_callback(_select_protocol)
    # The purpose (a client's) is set by OpenSSL itself, as for every server that asks.
    store = context.get_cert_store()
    if store is None:
        message = "a context without a store"
        raise RuntimeError(message)
    store.set_flags(crypto.X509StoreFlags.X509_STRICT)
    try:
        for authority in authorities:
            store.add_cert(crypto.X509.from_cryptography(authority))
    except crypto.Error as error:
        message = "OpenSSL cannot read the certificate"
        raise ValueError(message) from error
    return context


def present(
    context: TlsContext,
    chain: Sequence[x509.Certificate],
    private_key: ServerKey,
) -> None:
    """Give the server its certificate, what goes with it, and its key.

    Raises:
        ValueError: OpenSSL does not take them; the message is its reason.
    """
    try:
        context.use_certificate(chain[0])
        for certificate in chain[1:]:
            context.add_extra_chain_cert(certificate)
        context.use_privatekey(private_key)
        context.check_privatekey()
    except (SSL.Error, crypto.Error) as error:
        raise ValueError(_reason(error)) from error
    except TypeError as error:
        message = "its key is of a kind that cannot sign a handshake here"
        raise ValueError(message) from error


def _judge(connection: SSL.Connection, _: crypto.X509, code: int, depth: int, is_good: int) -> bool:
    """Keep why a certificate is refused; what OpenSSL thinks of it holds."""
    if not is_good:
        connection.set_app_data((code, depth))
    return bool(is_good)


def _select_protocol(_: SSL.Connection, offered: list[bytes]) -> Any:  # noqa: ANN401 - bytes, or the mark for none
    for protocol in ALPN_PROTOCOLS:
        if protocol in offered:
            return protocol
    return SSL.NO_OVERLAPPING_PROTOCOLS


def _reason(error: SSL.Error | crypto.Error) -> str:
    """Return the last reason in what OpenSSL says: that of TLS, after those of what it used."""
    said = error.args[0] if error.args else None
    if isinstance(said, list) and said:
        return str(said[-1][2])
    return "unknown error"


class TlsSession:
    """The server's side of one connection: bytes of the wire in, bytes of the wire out.

    What is to be sent is taken with `output`, after each of the other calls.
    """

    def __init__(self, context: TlsContext) -> None:
        self._connection = SSL.Connection(context, None)
        self._connection.set_accept_state()

    def take(self, data: bytes | memoryview) -> None:
        """Take bytes of the wire, at least one."""
        self._connection.bio_write(data)

    def shake_hands(self) -> bool:
        """Go on with the handshake as far as the bytes reach; return whether it is over.

        Raises:
            HandshakeRefusedError: it came to nothing. The output has the alert that tells the peer.
        """
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            return False
        except SSL.Error as error:
            refused = self._connection.get_app_data()
            if refused is not None:
                raise HandshakeRefusedError.of_certificate(*refused) from error
            raise HandshakeRefusedError(_reason(error)) from error
        return True

    def read(self) -> bytes | None:
        """Return what one record held; empty where none is whole yet, None at the end.

        The end is the peer's goodbye, or bytes that are no TLS.
        """
        try:
            return self._connection.recv(RECORD_BYTES)
        except SSL.WantReadError:
            return b""
        except SSL.Error:
            return None

    def seal(self, data: bytes) -> bytes:
        """Return the records that carry `data`; what there was to send before is taken already.

        Raises:
            ConnectionError: nothing can be sent any more.
        """
        left = memoryview(data)
        sealed: list[bytes] = []
        try:
            while left:
                left = left[self._connection.send(left[:RECORD_BYTES]) :]
                sealed.append(self.output())
        except SSL.Error as error:
            raise ConnectionError(_reason(error)) from error
        return sealed[0] if len(sealed) == 1 else b"".join(sealed)

    def say_goodbye(self) -> None:
        """Say that nothing more will be sent; the peer's goodbye is not waited for."""
        try:
            self._connection.shutdown()
        except SSL.Error:
            return  # there is nobody to say it to

    def output(self) -> bytes:
        """Return the bytes that are to be sent now."""
        pieces: list[bytes] = []
        try:
            while not pieces or len(pieces[-1]) == _OUTPUT_BYTES:
                pieces.append(self._connection.bio_read(_OUTPUT_BYTES))
        except SSL.WantReadError:
            pass
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def peer_chain(self) -> list[bytes]:
        """Return the verified chain of the peer in DER, its own certificate first."""
        chain = self._connection.get_verified_chain() or ()
        return [crypto.dump_certificate(crypto.FILETYPE_ASN1, one) for one in chain]

    def cipher_name(self) -> str | None:
        """Return OpenSSL's name of the cipher suite."""
        return self._connection.get_cipher_name()


def tls_extension(session: TlsSession, chain: Sequence[bytes]) -> dict[str, Any]:
    """Return the ASGI TLS extension (version 0.2) for an ended handshake and the peer's chain.

    The server's own certificate, which the application can read from its configuration, is None.
    """
    return {
        "server_cert": None,
        "client_cert_chain": [ssl.DER_cert_to_PEM_cert(der) for der in chain],
        "client_cert_name": _subject(chain[0]),
        "client_cert_error": None,
        "tls_version": TLS_1_3,
        "cipher_suite": _SUITES.get(session.cipher_name() or ""),
    }


def _subject(der: bytes) -> str | None:
    """Return the subject as RFC 4514 text, or None where it cannot be read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cryptography warns of lengths that X.520 forbids
        try:
            return x509.load_der_x509_certificate(der).subject.rfc4514_string()
        except (ValueError, TypeError, x509.InvalidVersion):
            return None

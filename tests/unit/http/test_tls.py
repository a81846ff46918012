"""The server's side of TLS in memory: what it agrees on, whom it refuses and why, what it keeps."""

import contextlib
from collections.abc import Callable, Sequence

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL, crypto

from host_agent.http.refusals import HandshakeRefusedError, TlsRejection
from host_agent.http.tls import RECORD_BYTES, TlsContext, TlsSession, mutual_tls, present
from host_agent.pki.door import door_context
from tests.support.pki_shapes import DAY, NOW, SERVER, Ca, Leaf, a_ca, curve, long_key

SERVER_CA = a_ca("Server CA")
SERVES = SERVER_CA.leaf(purposes=(SERVER,))


def server(*authorities: Ca) -> TlsContext:
    context = door_context([one.certificate for one in authorities])
    present(context, [SERVES.certificate], SERVES.key)
    return context


class Client:
    """A client of OpenSSL's that shows `leaf` and what comes with it."""

    def __init__(
        self, leaf: Leaf | None, *sent: Ca, settings: Callable[[SSL.Context], object] | None = None
    ) -> None:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_cipher_list(b"DEFAULT:@SECLEVEL=0")  # so that a weak one can be shown at all
        context.set_verify(SSL.VERIFY_NONE)
        if leaf is not None:
            context.use_certificate(leaf.certificate)
            context.use_privatekey(leaf.key)
        for one in sent:
            context.add_extra_chain_cert(one.certificate)
        if settings is not None:
            settings(context)
        self.tls = SSL.Connection(context, None)
        self.tls.set_connect_state()

    def meet(self, session: TlsSession) -> None:
        """Shake hands to the end.

        Raises:
            HandshakeRefusedError: the server ended it.
        """
        is_over = False
        while not is_over:
            with contextlib.suppress(SSL.WantReadError):
                self.tls.do_handshake()
            session.take(self.tls.bio_read(2**16))
            is_over = session.shake_hands()
            self.tls.bio_write(session.output())


def outcome(context: TlsContext, client: Client) -> HandshakeRefusedError | None:
    try:
        client.meet(TlsSession(context))
    except HandshakeRefusedError as error:
        return error
    return None


# -- what is agreed on -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "group"),
    [
        (None, "X25519MLKEM768"),
        (lambda context: context.set_tmp_ecdh(ec.SECP256R1()), "secp256r1"),
        (lambda context: context.set_tmp_ecdh(ec.SECP384R1()), "secp384r1"),
    ],
)
def test_the_best_group_of_both_sides_is_taken(
    settings: Callable[[SSL.Context], object] | None, group: str
) -> None:
    ca = a_ca()
    client = Client(ca.leaf(), settings=settings)
    client.meet(TlsSession(server(ca)))
    assert (client.tls.get_group_name() or "").lower() == group.lower()
    assert client.tls.get_protocol_version_name() == "TLSv1.3"


def test_what_both_sides_say_arrives_whole_and_the_end_is_told() -> None:
    ca = a_ca()
    session, client = TlsSession(server(ca)), Client(ca.leaf())
    client.meet(session)
    said = bytes(range(256)) * 1000
    client.tls.bio_write(session.seal(said))
    heard = b""
    while len(heard) < len(said):
        heard += client.tls.recv(RECORD_BYTES)
    assert heard == said
    client.tls.send(b"question")
    record = client.tls.bio_read(2**16)
    session.take(record[:7])
    assert session.read() == b""
    session.take(record[7:])
    assert session.read() == b"question"
    assert session.read() == b""
    session.say_goodbye()
    client.tls.bio_write(session.output())
    with pytest.raises(SSL.ZeroReturnError):
        client.tls.recv(1)
    client.tls.shutdown()
    session.take(client.tls.bio_read(2**16))
    assert session.read() is None


def test_bytes_that_are_no_tls_are_the_end() -> None:
    ca = a_ca()
    session, client = TlsSession(server(ca)), Client(ca.leaf())
    client.meet(session)
    session.take(b"\x17\x03\x03\x00\x20" + b"x" * 32)
    assert session.read() is None
    assert session.output()  # the alert
    with pytest.raises(ConnectionError):
        session.seal(b"too late")


def test_the_whole_verified_chain_is_at_hand() -> None:
    root = a_ca("Root CA", path_length=1)
    issuing = a_ca("Issuing CA", above=root, path_length=0)
    leaf = issuing.leaf()
    for trusted, sent in (((root, issuing), ()), ((root,), (issuing,))):
        session = TlsSession(server(*trusted))
        Client(leaf, *sent).meet(session)
        assert session.peer_chain() == [
            one.certificate.public_bytes(Encoding.DER) for one in (leaf, issuing, root)
        ]


# -- who is refused, and why -----------------------------------------------------------------------

GOOD = a_ca()
ENDED = a_ca("Ended CA", ends=NOW - DAY)
REFUSED: dict[str, tuple[Ca, Leaf | None, Sequence[Ca], str, TlsRejection]] = {
    "shows nothing": (
        GOOD,
        None,
        (),
        "peer did not return a certificate",
        TlsRejection.NO_CERTIFICATE,
    ),
    "of a stranger": (
        GOOD,
        a_ca("Another CA").leaf(),
        (),
        "unable to get local issuer certificate",
        TlsRejection.UNKNOWN_CA,
    ),
    "of a namesake": (
        GOOD,
        a_ca().leaf(),
        (),
        "unable to get local issuer certificate",
        TlsRejection.UNKNOWN_CA,
    ),
    "of a stranger who is sent along": (
        GOOD,
        (other := a_ca("Other CA")).leaf(),
        (other,),
        "self-signed certificate in certificate chain (an authority above it)",
        TlsRejection.UNKNOWN_CA,
    ),
    "has ended": (
        GOOD,
        GOOD.leaf(ends=NOW - DAY / 2),
        (),
        "certificate has expired",
        TlsRejection.EXPIRED,
    ),
    "of an authority that has ended": (
        ENDED,
        ENDED.leaf(),
        (),
        "certificate has expired (an authority above it)",
        TlsRejection.EXPIRED,
    ),
    "begins tomorrow": (
        GOOD,
        GOOD.leaf(begins=NOW + DAY),
        (),
        "certificate is not yet valid or the system clock is incorrect",
        TlsRejection.BAD_CERTIFICATE,
    ),
    "for servers": (
        GOOD,
        GOOD.leaf(purposes=(SERVER,)),
        (),
        "unsuitable certificate purpose",
        TlsRejection.BAD_CERTIFICATE,
    ),
    "not as strict as RFC 5280": (
        GOOD,
        GOOD.leaf(aki=None),
        (),
        "Missing Authority Key Identifier",
        TlsRejection.BAD_CERTIFICATE,
    ),
    "a short key": (
        GOOD,
        GOOD.leaf(key=long_key(1024)),
        (),
        "EE certificate key too weak",
        TlsRejection.BAD_CERTIFICATE,
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_every_refusal_has_its_reason_and_the_good_twin_none(name: str) -> None:
    ca, leaf, sent, sentence, rejection = REFUSED[name]
    refused = outcome(server(ca), Client(leaf, *sent))
    assert refused is not None
    assert (str(refused), refused.rejection) == (sentence, rejection)
    assert outcome(server(GOOD), Client(GOOD.leaf(key=long_key()))) is None


def test_an_older_tls_is_refused_by_name() -> None:
    older = Client(GOOD.leaf(), settings=lambda one: one.set_max_proto_version(SSL.TLS1_2_VERSION))
    refused = outcome(server(GOOD), older)
    assert refused is not None
    assert (str(refused), refused.rejection) == ("unsupported protocol", TlsRejection.BAD_PROTOCOL)


def test_a_client_that_does_not_believe_the_server_says_so() -> None:
    doubtful = Client(GOOD.leaf(), settings=lambda one: one.set_verify(SSL.VERIFY_PEER))
    session = TlsSession(server(GOOD))
    with pytest.raises(SSL.Error, match="certificate verify failed"):
        doubtful.meet(session)
    session.take(doubtful.tls.bio_read(2**16))
    with pytest.raises(HandshakeRefusedError, match="alert unknown ca"):
        session.shake_hands()


@pytest.mark.parametrize(
    "leaf",
    [
        GOOD.leaf(ends=NOW - DAY / 2),
        GOOD.leaf(begins=NOW + DAY),
        GOOD.leaf(aki=None),
        GOOD.leaf(more=[(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b""), True)]),
        a_ca("Another CA").leaf(),
        a_ca().leaf(),
        a_ca(usage=None, has_usage=False).leaf(),
    ],
)
def test_the_sentences_are_those_of_openssl(leaf: Leaf) -> None:
    """Its own words for a number come with pyOpenSSL only where no TLS is in between."""
    store = crypto.X509Store()
    store.set_flags(crypto.X509StoreFlags.X509_STRICT)
    store.add_cert(crypto.X509.from_cryptography(GOOD.certificate))
    with pytest.raises(crypto.X509StoreContextError) as caught:
        crypto.X509StoreContext(
            store, crypto.X509.from_cryptography(leaf.certificate)
        ).verify_certificate()
    code, _, sentence = caught.value.errors
    assert HandshakeRefusedError.of_certificate(code, 0).reason == sentence


def test_a_number_that_is_new_is_told_as_a_number() -> None:
    refused = HandshakeRefusedError.of_certificate(9999, 0)
    assert "9999" in str(refused)
    assert refused.rejection is TlsRejection.BAD_CERTIFICATE


# -- what the server itself shows ------------------------------------------------------------------


def test_a_key_of_another_certificate_is_not_taken() -> None:
    context = mutual_tls([GOOD.certificate])
    with pytest.raises(ValueError, match="key values mismatch"):
        present(context, [SERVES.certificate], curve())


def test_a_short_key_of_the_server_is_not_taken() -> None:
    weak, strong = (SERVER_CA.leaf(key=long_key(bits), purposes=(SERVER,)) for bits in (1024, 2048))
    with pytest.raises(ValueError, match="key too small"):
        present(mutual_tls([GOOD.certificate]), [weak.certificate], weak.key)
    present(mutual_tls([GOOD.certificate]), [strong.certificate], strong.key)

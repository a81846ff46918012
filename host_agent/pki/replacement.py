"""A client's certificate and key, put in the place of older ones: both or none.

In one file, as `login` stores them, it is one rename. In two files everything is written beside
them first, so that a full disk changes nothing, and then two renames follow, the key's first; cut
off between these, `recover` does the second one. The old key stays until the new one serves, and
nothing is removed while certificate and key do not belong together.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from host_agent.errors import ConfigurationError, InvalidIdentityError
from host_agent.identity import files
from host_agent.identity.certificate import PeerCertificate, parse_peer_certificate
from host_agent.pki.directory import locked, told
from host_agent.pki.door import load_certificates, load_private_key
from host_agent.pki.profiles import PrivateKey, key_hash
from host_agent.pki.renewal import RenewingKey
from host_agent.pki.request import (
    certified_key,
    checked_key,
    key_pem,
    new_key,
    new_request,
    read_request,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientPair:
    """What a client shows now: its certificate, and the key that belongs to it."""

    certificate: PeerCertificate
    key: RenewingKey


@dataclass(frozen=True, slots=True, kw_only=True)
class NextKey:
    """A new key that waits for its certificate, and its request as PEM."""

    key: PrivateKey
    request: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PairPlace:
    """Where certificate and key of a client lie; one file may be both. Links are followed."""

    cert: Path
    key: Path

    @classmethod
    def of(cls, cert: Path, key: Path) -> "PairPlace":
        """Return the place that these paths lead to."""
        return cls(cert=Path(os.path.realpath(cert)), key=Path(os.path.realpath(key)))

    @property
    def is_one_file(self) -> bool:
        """Whether certificate and key are in one file."""
        return self.cert == self.key

    @property
    def waiting(self) -> Path:
        """Where the next key waits with its request."""
        return self.key.with_name(f".{self.key.name}.renewal")

    @property
    def staged(self) -> "PairPlace":
        """Where the next pair is put together."""
        cert, key = (one.with_name(f".{one.name}.next") for one in (self.cert, self.key))
        return PairPlace(cert=cert, key=key)

    @property
    def _kept(self) -> Path:
        """Where the old key stays until the new pair is in its place."""
        return self.key.with_name(f".{self.key.name}.old")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other renewals of this pair from working meanwhile.

        Raises:
            ConfigurationError: the directory of the key cannot be used.
        """
        with told(), locked(self.key.parent):
            yield

    # -- what is there ----------------------------------------------------------------------------

    def read(self) -> ClientPair:
        """Return the pair.

        Raises:
            ConfigurationError: a file cannot be read, or they do not belong together.
            InvalidIdentityError: the certificate is of a shape that no identity has.
        """
        try:
            certificate = load_certificates(files.read_plain(self.cert))[0]
            key = cast("RenewingKey", load_private_key(files.read_plain(self.key)))
            shown, own = certified_key(certificate), checked_key(key.public_key())
            is_own = key_hash(shown) == key_hash(own)
        except ValueError as error:
            raise ConfigurationError([_naming(self.cert, error)]) from error
        if not is_own:
            raise ConfigurationError([f"{self.key} is not the key of {self.cert}"])
        der = certificate.public_bytes(serialization.Encoding.DER)
        return ClientPair(certificate=parse_peer_certificate(der), key=key)

    def recover(self) -> bool:
        """Finish a replacement that was cut off, or take it back; return whether one was.

        Raises:
            ConfigurationError: the files cannot be written.
        """
        is_cut_off = not self.is_pair() and not self.is_one_file and self._mend()
        if is_cut_off or self.is_pair():
            self.discard()
        return is_cut_off

    def _mend(self) -> bool:
        """Put back what makes a pair with what is there; return whether there was something.

        A power cut may keep the later of two renames and lose the earlier one.
        """
        staged = self.staged
        for source, target, found in (
            (staged.cert, self.cert, PairPlace(cert=staged.cert, key=self.key)),
            (staged.key, self.key, PairPlace(cert=self.cert, key=staged.key)),
            (self._kept, self.key, PairPlace(cert=self.cert, key=self._kept)),
        ):
            if found.is_pair():
                self._rename(source, target)
                if source != self._kept:
                    self.waiting.unlink(missing_ok=True)
                return True
        return False

    def is_pair(self) -> bool:
        """Return whether certificate and key can be read, and belong together."""
        try:
            self.read()
        except (ConfigurationError, InvalidIdentityError):
            return False
        return True

    def next_key(self, own: PeerCertificate) -> NextKey:
        """Return the key that waits, made and on disk if there was none: asking again is the same.

        One that waits in the place of another certificate than `own` is of no use any more: that
        renewal is over, or nobody can ask for it. A new one takes its place.

        Raises:
            ConfigurationError: it cannot be read or written.
        """
        renews = f"renews {own.fingerprint}\n".encode()
        self._forget_another(renews)
        if not self.waiting.exists():
            key = new_key()
            content = renews + key_pem(key) + new_request(key, own.common_name)
            try:
                files.create(self.waiting, content, mode=files.PRIVATE)
                files.sync_directory(self.waiting.parent)
            except OSError as error:
                raise ConfigurationError([_refused(self.waiting, error)]) from error
        try:
            data = files.read_plain(self.waiting)
            at = data.index(b"-----BEGIN CERTIFICATE REQUEST-----")
            loaded, request = load_private_key(data[len(renews) : at]), data[at:]
            asked = read_request(request)
        except ValueError as error:
            fault = f"{self.waiting} cannot be used: {error}; remove it to begin anew"
            raise ConfigurationError([fault]) from error
        is_same = asked.common_name == own.common_name and asked.public_key == loaded.public_key()
        if not isinstance(loaded, ec.EllipticCurvePrivateKey) or not is_same:
            fault = f"{self.waiting} is of another certificate; remove it to begin anew"
            raise ConfigurationError([fault])
        return NextKey(key=loaded, request=request)

    def _forget_another(self, renews: bytes) -> None:
        try:
            if self.waiting.exists() and not files.read_plain(self.waiting).startswith(renews):
                self.waiting.unlink()
        except OSError as error:
            raise ConfigurationError([_refused(self.waiting, error)]) from error
        except ValueError:  # damaged
            return

    # -- the replacement --------------------------------------------------------------------------

    def stage(self, certificate: bytes, key: PrivateKey) -> "PairPlace":
        """Write the next pair beside the old one, and return where it is.

        Raises:
            ConfigurationError: it cannot be written; then nothing of it is left.
        """
        self.discard()
        staged = self.staged
        try:
            if self.is_one_file:
                _write_like(self.key, staged.key, key_pem(key) + certificate)
            else:
                _write_like(self.cert, staged.cert, certificate)
                _write_like(self.key, staged.key, key_pem(key))
            for directory in {staged.cert.parent, staged.key.parent}:
                files.sync_directory(directory)
        except OSError as error:
            self.discard()
            raise ConfigurationError([_refused(self.key, error)]) from error
        return staged

    def commit(self) -> None:
        """Put the staged pair in the place of the old one.

        Raises:
            ConfigurationError: it cannot be; the old pair is still there.
        """
        try:
            if self.is_one_file:
                self._rename(self.staged.key, self.key)
            else:
                self._replace_both()
        except ConfigurationError:
            with suppress(ConfigurationError):
                self.recover()
            raise
        self.waiting.unlink(missing_ok=True)

    def _replace_both(self) -> None:
        """Replace the key, then the certificate; cut off in between, `recover` goes on."""
        try:
            self._kept.hardlink_to(self.key)
        except OSError as error:
            raise ConfigurationError([_refused(self.key, error)]) from error
        self._rename(self.staged.key, self.key)
        try:
            self._rename(self.staged.cert, self.cert)
        except ConfigurationError:
            self._rename(self._kept, self.key)  # needs no room on the disk
            raise
        self._kept.unlink(missing_ok=True)

    def discard(self) -> None:
        """Leave the old pair, and remove what was staged."""
        for path in (self.staged.cert, self.staged.key, self._kept):
            with suppress(OSError):
                path.unlink()

    def _rename(self, source: Path, target: Path) -> None:
        try:
            source.replace(target)
        except OSError as error:
            raise ConfigurationError([_refused(target, error)]) from error
        with suppress(OSError):  # it is renamed: going on is right, and `recover` knows either end
            files.sync_directory(target.parent)


def fault_of(pem: bytes, key: PrivateKey, old: PeerCertificate, authorities: bytes) -> str | None:
    """Return why a certificate that came is not the renewal of `old` for `key`; None if it is.

    It has the same issuer, and where that is among `authorities`, its signature.
    """
    try:
        certificate = load_certificates(pem)[0]
        peer = parse_peer_certificate(certificate.public_bytes(serialization.Encoding.DER))
        public_key, issuer = certified_key(certificate), certificate.issuer
    except (ValueError, TypeError, InvalidIdentityError) as error:
        return str(error)
    if public_key != key.public_key():
        return "it is for another key"
    if peer.common_name != old.common_name:
        return "it has another common name"
    if issuer != x509.load_der_x509_certificate(old.der).issuer:
        return "it is of another authority"
    known = [one for one in load_certificates(authorities) if one.subject == issuer]
    if known and not any(_is_signed_by(certificate, one) for one in known):
        return "it is not signed by the authority"
    if peer.not_valid_after <= old.not_valid_after:
        return "it does not last longer than the one that is there"
    return None


def _is_signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _write_like(model: Path, path: Path, data: bytes) -> None:
    """Write a new file with the owner and the mode of `model`, readable to no other group.

    Where this user may not give it that group, the file's own group may no more than everybody.
    """
    found = model.stat()
    files.create(path, data, mode=files.PRIVATE)
    descriptor = files.open_plain(path)
    try:
        made, mode = os.fstat(descriptor), found.st_mode & 0o777
        if made.st_nlink != 1:  # somebody else works here: it may be any file by now
            raise OSError(errno.EMLINK, os.strerror(errno.EMLINK), str(path))
        if (made.st_uid, made.st_gid) != (found.st_uid, found.st_gid):
            try:
                owner = found.st_uid if os.geteuid() == 0 else -1
                os.fchown(descriptor, owner, found.st_gid)
            except PermissionError:
                mode &= ~0o070 | (mode & 0o007) << 3
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _naming(path: Path, error: ValueError) -> str:
    return str(error) if str(path) in str(error) else f"{path}: {error}"


def _refused(path: Path, error: OSError) -> str:
    return f"{path} cannot be replaced: {(error.strerror or 'input/output error').lower()}"

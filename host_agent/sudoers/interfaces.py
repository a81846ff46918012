"""The addresses of this host's interfaces with their masks, as the kernel tells: rtnetlink(7).

As sudo's interfaces.c takes them: of interfaces that are up, and none of loopback ones. Where the
kernel may not be asked, /proc tells addresses, those of IPv4 without their masks.
"""

import ipaddress
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

_GET_LINK, _GET_ADDRESS, _DONE, _ERROR = 18, 22, 3, 2
_DUMP_REQUEST = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_UP, _LOOPBACK = 0x1, 0x8
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_LENGTHS = {socket.AF_INET: 4, socket.AF_INET6: 16}


def interface_addresses() -> frozenset[str]:
    """Return each as `ADDRESS/LENGTH`; without `/LENGTH` where the mask is not known."""
    try:
        return frozenset(_told())
    except (OSError, struct.error, ValueError):
        return frozenset(_from_proc())


def _told() -> Iterator[str]:
    flags = {index: flags for _, _, index, flags, _ in map(_LINK.unpack_from, _dump(_GET_LINK))}
    for message in _dump(_GET_ADDRESS):
        family, length, _flags, _scope, index = _ADDRESS.unpack_from(message)
        if family not in _LENGTHS or flags.get(index, _UP) & (_UP | _LOOPBACK) != _UP:
            continue
        found = dict(_attributes(message[_ADDRESS.size :]))
        packed = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS) or b""
        yield f"{ipaddress.ip_address(packed[: _LENGTHS[socket.AddressFamily(family)]])}/{length}"


def _dump(kind: int) -> Iterator[bytes]:
    """Yield the bodies of the messages by which the kernel answers a request for all of a kind."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as kernel:
        kernel.settimeout(5)
        kernel.send(_HEADER.pack(_HEADER.size + 1, kind, _DUMP_REQUEST, 1, 0) + b"\0")
        while True:
            data = kernel.recv(1 << 20)
            while len(data) >= _HEADER.size:
                length, told, _flags, _sequence, _port = _HEADER.unpack_from(data)
                if told == _DONE:
                    return
                if told == _ERROR or length < _HEADER.size:
                    message = "the kernel does not tell"
                    raise ValueError(message)
                yield data[_HEADER.size : length]
                data = data[(length + 3) & ~3 :]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size:
            return
        yield kind, data[_ATTRIBUTE.size : length]
        data = data[(length + 3) & ~3 :]


def _from_proc() -> Iterator[str]:
    previous = ""
    for line in _lines("/proc/self/net/fib_trie"):
        if "/32 host LOCAL" in line and not previous.split()[-1].startswith("127."):
            yield previous.split()[-1]
        previous = line
    for line in _lines("/proc/self/net/if_inet6"):
        address, _index, length, *_rest, name = line.split()
        if name != "lo":
            yield f"{ipaddress.IPv6Address(int(address, 16))}/{int(length, 16)}"


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []

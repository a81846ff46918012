"""What else runs a command over a network, on loopback: ssh, and nginx with fcgiwrap.

Debian's packages with configurations of our own on high ports, under the unix user who owns the
repository; nothing of the system's own instances is touched. They run the wrapper and do nothing of
what the agent does besides: no policy, no approval, no audit record on disk.
"""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.bench import command
from tests.bench.exchange import Exchange, client_context
from tests.bench.ground import CALLER, Setting
from tests.bench.load import Act

START_SECONDS = 10.0
_PROGRAMS = ("sshd", "ssh", "ssh-keygen", "nginx", "fcgiwrap")
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A way to run the wrapper without the agent. `acts` gives so many to be in flight."""

    name: str
    acts: Callable[[int], contextlib.AbstractContextManager[Sequence[Act]]]


def why_none() -> str | None:
    """Return why the peers cannot be measured, or None."""
    missing = [name for name in _PROGRAMS if shutil.which(name, path=_PATH) is None]
    return f"needs {', '.join(missing)}" if missing else None


@contextlib.contextmanager
def peers(place: Path, setting: Setting, user: pwd.struct_passwd) -> Iterator[list[Peer]]:
    """The peers, serving `setting`'s wrapper and repository as `user`."""
    place.mkdir()
    wrapped = [setting.prefix[-1], "status", str(setting.site.repository.path)]
    with (
        _sshd(place / "ssh", wrapped, user) as ssh,
        _nginx(place / "nginx", wrapped, user, setting) as url,
    ):
        yield [
            Peer(name="ssh, forced command, a connection each", acts=partial(_commands, ssh)),
            Peer(
                name="ssh, forced command, one multiplexed connection",
                acts=partial(_multiplexed, ssh, place / "ssh" / "control"),
            ),
            Peer(
                name="nginx with mutual TLS and fcgiwrap, kept alive",
                acts=partial(_exchanges, url, setting),
            ),
        ]


# -- ssh ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _sshd(place: Path, wrapped: Sequence[str], user: pwd.struct_passwd) -> Iterator[Sequence[str]]:
    """An sshd that runs `wrapped` whatever is asked for; the command line of its client."""
    place.mkdir()
    for name in ("host", "client"):
        _run("/usr/bin/ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / name))
    port = _free_port()
    key = (place / "client.pub").read_text()
    (place / "authorized_keys").write_text(f'restrict,command="{" ".join(wrapped)}" {key}')
    host = (place / "host.pub").read_text()
    (place / "known_hosts").write_text(f"[127.0.0.1]:{port} {host}")
    (place / "sshd_config").write_text(
        f"""ListenAddress 127.0.0.1:{port}
HostKey {place}/host
AuthorizedKeysFile {place}/authorized_keys
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
UseDNS no
MaxStartups 100
MaxSessions 100
PidFile none
LogLevel FATAL
"""
    )
    (place / "ssh_config").write_text(
        f"""Host *
HostName 127.0.0.1
Port {port}
User {user.pw_name}
IdentityFile {place}/client
IdentitiesOnly yes
UserKnownHostsFile {place}/known_hosts
StrictHostKeyChecking yes
BatchMode yes
LogLevel ERROR
"""
    )
    with _empty_root(), _process("/usr/sbin/sshd", "-D", "-e", "-f", str(place / "sshd_config")):
        _wait_for(port)
        yield ("/usr/bin/ssh", "-F", str(place / "ssh_config"))


@contextlib.contextmanager
def _empty_root() -> Iterator[None]:
    """The directory that sshd wants to lock its unprivileged half into."""
    path = Path("/run/sshd")
    is_ours = not path.exists()
    path.mkdir(exist_ok=True)
    try:
        yield
    finally:
        if is_ours:
            path.rmdir()


@contextlib.contextmanager
def _commands(client: Sequence[str], count: int) -> Iterator[Sequence[Act]]:
    yield [partial(command.run, [*client, "peer"])] * count


@contextlib.contextmanager
def _multiplexed(client: Sequence[str], control: Path, count: int) -> Iterator[Sequence[Act]]:
    through = [*client, "-S", str(control)]
    with _process(*through, "-M", "-N", "peer"):
        end = time.monotonic() + START_SECONDS
        while subprocess.run([*through, "-O", "check", "peer"], capture_output=True).returncode:
            _require(time.monotonic() < end, "the ssh master did not connect")
            time.sleep(0.05)
        yield [partial(command.run, [*through, "peer"])] * count


# -- nginx ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def _nginx(
    place: Path, wrapped: Sequence[str], user: pwd.struct_passwd, setting: Setting
) -> Iterator[str]:
    """An nginx that wants a client certificate and runs `wrapped` through fcgiwrap; its URL."""
    place.mkdir()
    os.chown(place, user.pw_uid, user.pw_gid)
    script = place / "status.cgi"
    head = r"printf 'Content-Type: text/plain\r\n\r\n'"
    script.write_text(f"#!/bin/sh\n{head}\nexec {' '.join(wrapped)}\n")
    script.chmod(0o755)
    port = _free_port()
    site = setting.site
    (place / "nginx.conf").write_text(
        f"""daemon off;
user {user.pw_name};
worker_processes 2;
pid {place}/nginx.pid;
error_log {place}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log {place}/access.log;
  client_body_temp_path {place}/body;
  fastcgi_temp_path {place}/fastcgi;
  proxy_temp_path {place}/proxy;
  scgi_temp_path {place}/scgi;
  uwsgi_temp_path {place}/uwsgi;
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_protocols TLSv1.3;
    ssl_certificate {site.server.certificate_path};
    ssl_certificate_key {site.server.key_path};
    ssl_client_certificate {site.pki.ca_path};
    ssl_crl {site.pki.crl_path};
    ssl_verify_client on;
    keepalive_requests 1000000;
    location = /status {{
      fastcgi_param SCRIPT_FILENAME {script};
      fastcgi_param REQUEST_METHOD $request_method;
      fastcgi_param SERVER_PROTOCOL $server_protocol;
      fastcgi_pass unix:{place}/socket;
    }}
  }}
}}
"""
    )
    with (
        _fcgiwrap(place / "socket", user),
        _process("/usr/sbin/nginx", "-p", str(place), "-c", f"{place}/nginx.conf", "-e", "stderr"),
    ):
        _wait_for(port)
        yield f"https://127.0.0.1:{port}"


@contextlib.contextmanager
def _fcgiwrap(path: Path, user: pwd.struct_passwd) -> Iterator[None]:
    """Eight of them on one socket, each a child of ours: its own `-c 8` leaves orphans behind."""
    with contextlib.ExitStack() as exits, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        os.chown(path, user.pw_uid, user.pw_gid)
        listener.listen(64)
        for _ in range(8):
            exits.enter_context(_process("/usr/sbin/fcgiwrap", stdin=listener.fileno(), user=user))
        yield


@contextlib.contextmanager
def _exchanges(url: str, setting: Setting, count: int) -> Iterator[Sequence[Act]]:
    leaf = setting.site.client(CALLER)
    context = client_context(setting.site.pki.ca_path, leaf.certificate_path, leaf.key_path)

    with contextlib.ExitStack() as exits:
        connections = [exits.enter_context(Exchange(url, context)) for _ in range(count)]
        yield [partial(one.send, one.get("/status"), 200) for one in connections]


# -- processes ------------------------------------------------------------------------------------


@contextlib.contextmanager
def _process(
    *argv: str, stdin: int = subprocess.DEVNULL, user: pwd.struct_passwd | None = None
) -> Iterator[None]:
    """A program of ours in the background, ended by its own id."""
    process = subprocess.Popen(
        argv,
        stdin=stdin,
        stdout=subprocess.DEVNULL,
        user=None if user is None else user.pw_uid,
        group=None if user is None else user.pw_gid,
        extra_groups=None if user is None else [],
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(port: int) -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            _require(time.monotonic() < end, f"nobody listens on port {port}")
            time.sleep(0.02)
        else:
            return


def _require(is_well: bool, why: str) -> None:
    if not is_well:
        raise RuntimeError(why)


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True)

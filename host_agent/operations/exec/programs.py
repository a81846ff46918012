"""Which programs cannot be registered as commands: those that could run, write or undo anything.

A list, and so a net and not a proof: it keeps an administrator from handing out root by mistake,
or from opening a way around an adapter's grammar, allow-list and protections.
"""

import re

from pydantic import ValidationInfo

_FAMILIES: dict[str, str] = {
    "a shell": """
        ash bash busybox csh dash fish ksh mksh posh rbash rksh sh tcsh toybox yash zsh
    """,
    "an interpreter": """
        awk bpftrace deno emacs expect gawk gdb guile irb java jshell julia lua luajit m4 make mawk
        nawk node nodejs ocaml octave original-awk perl php pry psql pypy python python3-dbg r
        rscript ruby sqlite tclsh wish
    """,
    "a program that runs others": """
        at bash-static batch capsh chroot crontab doas docker env ionice ip kubectl machinectl
        nerdctl nice nohup nsenter parallel pkexec podman runc runuser screen script setarch setpriv
        setsid snap ssh sshpass start-stop-daemon stdbuf strace su sudo sudoedit systemd-nspawn
        systemd-run taskset time timeout tmux unshare watch xargs
    """,
    "an editor or a pager": """
        ed emacsclient ex joe less man mcedit mg micro more most nano nvim pico rview rvim vi view
        vim vimdiff visudo vipw
    """,
    "a package manager": """
        apk cpan dnf flatpak gem npm npx pip pipx rpm yarn yum
    """,
    "a tool that changes any file, device or account": """
        chgrp chmod chown chpasswd cp curl dd dmsetup fdisk find ftp gcc git gpasswd groupadd
        insmod install iptables kexec ln losetup mkfs modprobe mount mv nc ncat netcat nft openssl
        parted passwd patch rm rsync scp sed sftp sgdisk shred socat sysctl tar tee truncate umount
        unzip useradd usermod wget zip
    """,
}
_KINDS = {name: kind for kind, names in _FAMILIES.items() for name in names.split()}
_VERSION = re.compile(r"[-.]?[0-9][0-9.]*$")
_SCRIPT = re.compile(r".+\.(?:sh|bash|py|pl|rb)")
_PATH = re.compile(r"(?:/[A-Za-z0-9._+-]+)+")
MAX_PATH_LENGTH = 512


def kind_of(path: str, adapters_own: frozenset[str]) -> str | None:
    """Return what makes the program at `path` one that is not registered; None where nothing does.

    By its name, without a version or an alternative's: `python3.11` is an interpreter, and
    `vim.tiny` an editor, but `install.sh` is a script of the administrator's. `adapters_own` are
    the programs that do or undo what another adapter does.
    """
    name = path.rpartition("/")[2].lower()
    if _SCRIPT.fullmatch(name):
        return None
    if name.startswith("ld-linux"):
        return "a program that runs others"
    plain = _VERSION.sub("", name)
    names = (name, plain, plain.partition(".")[0])
    if any(one in adapters_own for one in names):
        return "what another adapter does, or undoes"
    return next((_KINDS[one] for one in names if one in _KINDS), None)


def check_path(path: str, info: ValidationInfo) -> str:
    """Return `path`, an absolute and normal one of a program that may be registered.

    The validation's context names under `adapters_programs` those of the other adapters.

    Raises:
        ValueError: it has another form, or names a program that does more than one thing.
    """
    is_normal = _PATH.fullmatch(path) is not None and not {".", ".."} & set(path.split("/"))
    if not is_normal or len(path) > MAX_PATH_LENGTH:
        message = (
            "must be absolute, without '.', '..', '//' or a '/' at the end, of letters, digits,"
            " '.', '_', '+', '-'"
        )
        raise ValueError(message)
    context = info.context if isinstance(info.context, dict) else {}
    kind = kind_of(path, context.get("adapters_programs", frozenset()))
    if kind is not None:
        message = f"is {kind}; register a program that does one thing"
        raise ValueError(message)
    return path

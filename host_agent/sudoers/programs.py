"""What is known of programs: what each gives away when root runs it.

The tables name programs by their base name; `kind_of` takes versions and variants off first. A
program that is in no table is not safe by that: only `HARMLESS` says so.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from host_agent.sudoers.values import Severity, words


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramKind:
    """A kind of program: the rule it breaks, how badly, why, and what to do instead."""

    rule: str
    severity: Severity
    reason: str
    is_bounded_by_arguments: bool = False
    """Whether exact arguments take most of the danger out."""


_KINDS: tuple[tuple[ProgramKind, frozenset[str]], ...] = (
    (
        ProgramKind(
            rule="shell", severity=Severity.CRITICAL, reason="is a shell: it runs anything"
        ),
        words("""
    sh ash bash dash zsh ksh mksh lksh yash fish csh tcsh rbash rzsh busybox toybox sash pwsh
    elvish nu xonsh posh git-shell
    """),
    ),
    (
        ProgramKind(
            rule="interpreter",
            severity=Severity.CRITICAL,
            reason="is an interpreter: it runs any program that it is given",
        ),
        words("""
    python pypy ipython perl ruby irb node nodejs deno bun php lua luajit tclsh wish expect awk
    gawk mawk nawk guile scheme racket julia r rscript octave java jshell jrunscript groovy
    scala erl iex elixir ghc ghci runghc ocaml gdb gdbserver lldb jjs sqlite3 sqlite psql mysql
    mariadb mongo redis-cli dc gnuplot bpftrace stap jq ansible ansible-playbook puppet
    chef-client salt-call salt cowsay rake bundle rails
    """),
    ),
    (
        ProgramKind(
            rule="editor",
            severity=Severity.CRITICAL,
            reason="is an editor: it writes any file and starts a shell",
        ),
        words("""
    vi vim view vimdiff rvim rview ex gvim gview nvim neovim elvis nvi vile nano rnano pico
    emacs emacsclient ed red joe jed jmacs jstar mcedit mc ne kak hx helix micro editor
    sensible-editor select-editor zile mg e3 tilde
    """),
    ),
    (
        ProgramKind(
            rule="pager",
            severity=Severity.HIGH,
            reason="is a pager: it shows any file and starts a shell",
        ),
        words("""
    less more most pg pager sensible-pager man mandb lesspipe bat batcat zless zmore bzmore
    xzmore info lynx links w3m elinks top htop atop iftop iotop
    """),
    ),
    (
        ProgramKind(
            rule="package-manager",
            severity=Severity.CRITICAL,
            reason="installs packages, whose scripts run as root",
        ),
        words("""
    apt apt-get apt-file aptitude aptdcon dpkg dpkg-reconfigure dselect tasksel dnf dnf5 yum rpm
    rpm-ostree zypper pacman apk snap flatpak pip pipx easy_install npm npx yarn pnpm gem cargo
    rustup go composer cpan cpanm brew nix nix-env nix-shell guix conda mamba poetry
    unattended-upgrade unattended-upgrades gdebi alien installer equo emerge opkg
    """),
    ),
    (
        ProgramKind(
            rule="build-tool",
            severity=Severity.CRITICAL,
            reason="runs commands that a file or an argument names",
        ),
        words("""
    make gmake cmake ninja meson ant mvn gradle scons bazel gcc g++ cc clang ld as tcc ccache
    debuild dpkg-buildpackage rpmbuild mmdebstrap debootstrap mkosi
    """),
    ),
    (
        ProgramKind(
            rule="file-tool",
            severity=Severity.CRITICAL,
            reason="writes, moves or removes files of root, or changes who may",
        ),
        words("""
    cp mv ln rm rmdir mkdir mkfifo mknod install dd tee truncate touch shred split csplit unlink
    link chmod chown chgrp chattr setfacl setcap tar bsdtar star gtar cpio pax zip unzip 7z 7za
    7zr rar unrar ar gzip gunzip bzip2 xz zstd lz4 rsync find fd fdfind xargs sed sort uniq
    patch mktemp rename logrotate sponge tac shuf update-alternatives alternatives dpkg-divert
    dpkg-statoverride systemd-tmpfiles mlocate updatedb openssl gpg ssh-keygen certbot acme.sh
    restic borg duplicity rclone rdiff-backup rsnapshot git hg svn bzr cvs etckeeper
    """),
    ),
    (
        ProgramKind(
            rule="file-reader",
            severity=Severity.HIGH,
            reason="shows files that only root may read, such as /etc/shadow",
        ),
        words("""
    cat head tail nl od xxd hexdump strings base64 base32 basenc cut paste join fold fmt pr rev
    grep egrep fgrep rgrep zgrep rg ack diff sdiff diff3 cmp comm wc look tr expand unexpand
    iconv file strace ltrace zcat bzcat xzcat column ul readelf nm objdump debugfs getfacl
    journalctl dmesg lsof arp date sha1sum sha256sum sha512sum md5sum b2sum cksum
    """),
    ),
    (
        ProgramKind(
            rule="container",
            severity=Severity.CRITICAL,
            reason="enters containers or namespaces, and so runs any program on the host's files",
        ),
        words("""
    docker docker-compose dockerd podman podman-compose buildah skopeo nerdctl ctr crictl runc
    crun containerd kubectl k3s microk8s helm lxc lxd lxd-user incus lxc-attach lxc-start
    lxc-create lxc-execute lxc-console lxc-stop lxc-destroy lxc-copy lxc-unshare lxc-usernsexec
    nsenter unshare chroot arch-chroot schroot systemd-nspawn machinectl portablectl bwrap
    firejail virsh virt-install virt-manager qemu kvm vagrant minikube distrobox toolbox
    ip-netns
    """),
    ),
    (
        ProgramKind(
            rule="virtualisation",
            severity=Severity.CRITICAL,
            reason="rules guests and their disks, and runs programs in them, past the agent",
            is_bounded_by_arguments=True,
        ),
        words("""
    pct qm pvesh pveum pvesm vzdump qmrestore pctrestore pvecm pvenode ha-manager pve-firewall
    pmxcfs pveceph proxmox-backup-client
    """),
    ),
    (
        ProgramKind(
            rule="storage",
            severity=Severity.CRITICAL,
            reason="destroys or mounts file systems, past the agent's grammar and protections",
            is_bounded_by_arguments=True,
        ),
        words("""
    zfs zpool zdb zhack zstreamdump mount umount fusermount fusermount3 losetup swapon swapoff
    mkswap fdisk sfdisk cfdisk gdisk sgdisk parted partprobe mkfs fsck mke2fs e2fsck tune2fs
    resize2fs debugfs dumpe2fs xfs_db xfs_admin xfs_io xfs_repair btrfs mdadm lvm lvcreate
    lvremove lvresize lvextend lvchange vgcreate vgremove vgchange pvcreate pvremove cryptsetup
    dmsetup kpartx blkdiscard wipefs hdparm sdparm nvme smartctl badblocks partclone ddrescue
    mount.cifs sshfs iscsiadm exportfs quotacheck setquota edquota
    """),
    ),
    (
        ProgramKind(
            rule="service-control",
            severity=Severity.CRITICAL,
            reason="starts, stops or makes any unit, past the agent's grammar and protections",
            is_bounded_by_arguments=True,
        ),
        words("""
    systemctl service init telinit initctl shutdown reboot halt poweroff rc-service rc-update
    update-rc.d invoke-rc.d chkconfig loginctl hostnamectl timedatectl localectl networkctl
    resolvectl supervisorctl supervisord monit sv runsv s6-svc s6-rc dinitctl pm2 bootctl
    systemd-sysext kexec rtcwake
    """),
    ),
    (
        ProgramKind(
            rule="becomes-root",
            severity=Severity.CRITICAL,
            reason="becomes another user, root included",
        ),
        words("""
    su sudo sudo-rs doas please pkexec runuser setpriv sg newgrp gosu su-exec chpst setuidgid
    capsh run0 pkttyagent ksu super calife login agetty getty sulogin dzdo pbrun
    """),
    ),
    (
        ProgramKind(
            rule="launcher",
            severity=Severity.CRITICAL,
            reason="runs the command that its arguments name",
        ),
        words("""
    env nice ionice renice nohup timeout time stdbuf chrt taskset setsid setarch linux32 linux64
    i386 x86_64 flock watch script scriptreplay screen tmux dtach abduco byobu parallel at batch
    crontab cron anacron run-parts systemd-run systemd-inhibit systemd-cat busctl dbus-send
    gdbus dbus-launch start-stop-daemon numactl prlimit choom unbuffer rlwrap logsave cpulimit
    faketime fakeroot fakechroot proot perf valgrind entr inotifywait incrontab daemon daemonize
    catchsegv ld.so ldconfig multitime hyperfine eatmydata torsocks torify proxychains xvfb-run
    dbus-run-session command exec eval nsjail aa-exec runcon cgexec softlimit pexec xterm uxterm
    rxvt urxvt konsole gnome-terminal zenity wall write dialog whiptail keepalived
    cockpit-bridge
    """),
    ),
    (
        ProgramKind(
            rule="account-tool",
            severity=Severity.CRITICAL,
            reason="changes users, passwords, groups or sudoers",
        ),
        words("""
    useradd usermod userdel adduser deluser addgroup delgroup groupadd groupmod groupdel
    groupmems gpasswd passwd chpasswd chgpasswd chsh chfn chage newusers vipw vigr visudo
    cvtsudoers pwconv pwunconv grpconv grpunconv pam-auth-update pam_tally2 faillock htpasswd
    smbpasswd ldapmodify ldapadd kadmin.local samba-tool realm authconfig authselect homectl
    userdbctl newuidmap newgidmap ssh-copy-id host-agent
    """),
    ),
    (
        ProgramKind(
            rule="network-tool",
            severity=Severity.CRITICAL,
            reason="carries files or programs over the network as root, or changes the network",
        ),
        words("""
    ssh scp sftp slogin rsh rcp rlogin sshd autossh mosh curl wget aria2c axel ftp lftp ncftp
    tftp nc ncat netcat socat telnet openvpn wg wg-quick ip ifconfig route ifup ifdown nmcli
    nmtui iptables ip6tables iptables-save iptables-restore ip6tables-restore xtables-multi nft
    ufw firewall-cmd ebtables arptables tc ethtool iw iwconfig wpa_cli dhclient dhcpcd tcpdump
    tshark wireshark dumpcap ngrep nmap zmap masscan hping3 traceroute dig dnsmasq nsupdate aws
    gcloud az mail sendmail exim exim4 mutt mailx postconf postsuper nginx apache2 apache2ctl
    apachectl httpd lighttpd haproxy caddy hping ettercap dsniff
    """),
    ),
    (
        ProgramKind(
            rule="kernel-tool",
            severity=Severity.CRITICAL,
            reason="changes the running kernel or how the host boots",
        ),
        words("""
    insmod modprobe rmmod kmod depmod sysctl bpftool update-grub grub-install grub-mkconfig
    update-initramfs dracut mkinitramfs efibootmgr flashrom fwupdmgr setpci setserial dmidecode
    auditctl ausearch aureport setenforce semanage semodule restorecon chcon aa-complain
    aa-disable apparmor_parser mokutil trace-cmd kill killall pkill skill snice fuser
    """),
    ),
)

PROGRAMS: Mapping[str, ProgramKind] = {
    name: kind for kind, names in reversed(_KINDS) for name in names
}
"""Every program that is known to give something away."""

HARMLESS: frozenset[str] = frozenset(
    f"{directory}/{name}"
    for directory in ("/bin", "/usr/bin")
    for name in words("""
    true false id whoami uptime nproc arch uname hostid tty logname
    """)
)
"""Commands that give nothing away, where no arguments or exact ones are allowed."""

_SUFFIX = re.compile(
    r"(?:[-.]?[0-9][0-9.]*[a-z]?|[-.](?:basic|tiny|nox|gtk3?|athena|small|dbg|static))+"
)
_FAMILIES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), program)
    for pattern, program in (
        (r"(?:mkfs|fsck|u?mount)\..+", "mount"),
        (r"ld(?:-linux.*)?\.so.*", "ld.so"),
        (r"qemu-.+", "qemu"),
        (r"lxc-.+", "lxc"),
        (r"docker-.+", "docker"),
        (r"pve.+", "pvesh"),
        (r"git-.+", "git"),
        (r"apt-.+", "apt"),
        (r"dpkg-.+", "dpkg"),
        (r"vim\..+", "vim"),
        (r"python.+-config", "python"),
        (r"(?:xtables|ip6?tables)-.+", "iptables"),
    )
)
"""Programs that come in many names, each with the one that stands for all."""


def kind_of(path: str) -> ProgramKind | None:
    """Return what kind of program the base name of `path` tells, or None."""
    name = path.rpartition("/")[2].lower()
    for candidate in (name, _SUFFIX.sub("", name)):
        if candidate in PROGRAMS:
            return PROGRAMS[candidate]
    for pattern, program in _FAMILIES:
        if pattern.fullmatch(name):
            return PROGRAMS[program]
    return None

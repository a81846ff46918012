"""What is known of variables: which ones give root's programs away."""

import fnmatch

from host_agent.sudoers.values import words

_DANGEROUS_VARIABLES: frozenset[str] = words("""
    LD_* BASH_* BASHOPTS SHELLOPTS ENV IFS CDPATH PS4 PATH PERL* PYTHON* RUBY* NODE_* LUA_* PHP*
    PHPRC JAVA_* JDK_* _JAVA_OPTIONS CLASSPATH GIT_* SSH_ASKPASS* RSYNC_* CVS_RSH SVN_* EDITOR
    VISUAL SUDO_EDITOR SUDO_ASKPASS PAGER MANPAGER GIT_PAGER SYSTEMD_* LESS* BROWSER SHELL
    ZDOTDIR FPATH TERMINFO* TERMCAP TERMPATH HOME XDG_CONFIG_HOME XDG_CONFIG_DIRS XDG_DATA_DIRS
    XDG_DATA_HOME GCONV_PATH LOCPATH NLSPATH LOCALDOMAIN RES_OPTIONS HOSTALIASES RESOLV_*
    MALLOC_* GLIBC_TUNABLES LIBPATH SHLIB_PATH DYLD_* TMPDIR TMPPREFIX TMP TEMP OPENSSL_* SSL_*
    CURL_* GNUPGHOME KRB5_* AWK* GAWK* TCL* MAKEFLAGS GNUMAKEFLAGS MAKEFILES CARGO_* GOPATH
    RUSTC* CC CXX LDFLAGS PKG_CONFIG_* APT_* DPKG_* DEBCONF_* ZFS_* ZPOOL_* PVE_* DOCKER_*
    KUBECONFIG CONTAINER_* LIBVIRT_* ANSIBLE_* PGSERVICEFILE MYSQL_* FCEDIT HISTFILE INPUTRC
    PROMPT_COMMAND DBUS_* SUDO_*
    """)
_HARMLESS_VARIABLES: frozenset[str] = words("""
    COLORS COLORTERM DISPLAY HOSTNAME KRB5CCNAME LS_COLORS DPKG_COLORS PS1 PS2 XAUTHORITY
    XAUTHORIZATION XDG_CURRENT_DESKTOP LANG LANGUAGE LINGUAS LC_* LC_ALL TERM TZ USER USERNAME
    LOGNAME MAIL HISTSIZE HISTCONTROL INPUTRC_COLOR CHARSET _XKB_CHARSET QTDIR KDEDIR EMAIL
    DEBEMAIL DEBFULLNAME GREP_COLOR GREP_COLORS NO_COLOR CLICOLOR COLUMNS LINES GPG_AGENT_INFO
    GPG_TTY SSH_AGENT_PID SSH_AUTH_SOCK SSH_CLIENT SSH_CONNECTION SSH_TTY GIT_AUTHOR_*
    GIT_COMMITTER_* GIT_AUTHOR_NAME GIT_AUTHOR_EMAIL GIT_COMMITTER_NAME GIT_COMMITTER_EMAIL
    http_proxy https_proxy ftp_proxy all_proxy no_proxy HTTP_PROXY HTTPS_PROXY FTP_PROXY
    ALL_PROXY NO_PROXY STY TMUX INVOCATION_ID LC_ADDRESS LC_COLLATE LC_CTYPE LC_IDENTIFICATION
    LC_MEASUREMENT LC_MESSAGES LC_MONETARY LC_NAME LC_NUMERIC LC_PAPER LC_TELEPHONE LC_TIME
    """)


def is_harmless_variable(pattern: str) -> bool:
    """Return whether a variable, as `env_keep` names it, gives nothing away."""
    name = pattern.partition("=")[0]
    if name in _HARMLESS_VARIABLES:
        return True
    return "*" not in name and any(
        fnmatch.fnmatchcase(name, known) for known in _HARMLESS_VARIABLES if "*" in known
    )


def is_dangerous_variable(pattern: str) -> bool:
    """Return whether it can change what a program of root loads, runs or writes."""
    name = pattern.partition("=")[0]
    if is_harmless_variable(name):
        return False
    plain = name.replace("*", "")
    return any(
        fnmatch.fnmatchcase(plain, known) or fnmatch.fnmatchcase(known.replace("*", ""), name)
        for known in _DANGEROUS_VARIABLES
    )

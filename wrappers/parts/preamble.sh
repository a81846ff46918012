# Nothing that came along is believed: no variable, option of the shell, directory, umask or standard
# input. `-p` in the first line has bash take no function, option or startup file from outside.
set -euo pipefail
set -f +o posix # `set +f` only around a pattern that is meant
shopt -u expand_aliases inherit_errexit shift_verbose # left on by POSIXLY_CORRECT
# `here` is where this file lies, and root's lists beside it; `caller` the uid that sudo runs it for.
# shellcheck disable=SC2034 # not every wrapper needs both
declare -r +x here=${0%/*} caller=${SUDO_UID+${SUDO_UID:-unknown}}
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
die() { # STATUS SENTENCE
  printf 'host-agent: %s\n' "$2" >&2
  exit "$1"
}
mapfile -d '' -t entries </proc/self/environ
for entry in "${entries[@]}"; do
  name=${entry%%=*}
  [[ $entry == *=* ]] || name=''
  case $name in
    PATH | LC_ALL) ;;
    UID | EUID | SECONDS | RANDOM | SRANDOM | EPOCHSECONDS | EPOCHREALTIME | BASH_XTRACEFD)
      die 64 "the environment has $name, which is bash's own to say"
      ;;
    '' | [0-9]* | *[!A-Za-z0-9_]*) die 64 'a name in the environment has another form' ;;
    *) unset -v "$name" 2>/dev/null || export -n "${name?}" ;; # SHELLOPTS stays, unexported
  esac
done
unset -v entries entry name
IFS=$' \t\n'
umask 077
cd /
export -n PWD OLDPWD SHLVL # bash would give them to every program; so they get PATH and LC_ALL
exec </dev/null

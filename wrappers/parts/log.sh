log() { # to syslog, for whom it is done; never waits
  [[ $caller =~ ^[0-9]{1,10}$ ]] || return 0
  (/usr/bin/timeout --kill-after=1 2 /usr/bin/logger -t host-agent -p authpriv.notice -- \
    "uid $caller: ${0##*/} $*" >/dev/null 2>&1 &)
}

(($# == 1)) || die 64 'exactly one argument is needed'
is_vmid "$1" || die 64 'the VMID has another form'
log "$@"
read_root_list
require_named pct "$1"
require_allowed "pct.$verb" "$1"
exec /usr/bin/timeout --kill-after=3 60 /usr/sbin/pct "$verb" "$1"

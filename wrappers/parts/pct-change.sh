(($# == 2)) || die 64 'exactly 2 arguments are needed'
is_vmid "$1" || die 64 'the VMID has another form'
[[ $2 =~ ^[0-9a-f]{64}$ ]] || die 64 'the hash of the configuration has another form'
log "$@"
facts=$'\n'$("$here/pct-inspect" "$verb" "$1")$'\n'
[[ $facts == *$'\nconfig\t'"$2"$'\n'* ]] || die 75 'the container is configured otherwise now'
bound "$seconds" 5 256 2G

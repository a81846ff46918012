(($# == 2)) || die 64 'exactly 2 arguments are needed'
is_unit "$1" || die 64 'the unit is not a whole name of a known type'
[[ $2 =~ ^[0-9a-f]{64}$ ]] || die 64 'the state has another form'
log "$@"
facts=$'\n'$("$here/systemd-inspect" "$verb" "$1")$'\n'
[[ $facts == *$'\nstate\t'"$2"$'\n'* ]] || die 75 'the unit has changed since it was asked for'
bound 300 3 64 256M
exec "${run[@]}" /usr/bin/systemctl --no-ask-password --no-pager "$verb" -- "$1"

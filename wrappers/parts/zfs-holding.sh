(($# == 3)) || die 64 'exactly 3 arguments are needed'
[[ $1 == *@* ]] || die 64 'the dataset is no snapshot'
is_dataset "$1" || die 64 'the snapshot has another form'
is_tag "$2" || die 64 'the tag has another form'
[[ $3 =~ ^[0-9]{1,20}$ ]] || die 64 'the guid has another form'
log "$@"
facts=$'\n'$("$here/zfs-inspect" "$verb" "$1" "$2")$'\n'
[[ $facts == *$'\nguid\t'"$3"$'\n'* ]] || die 75 'another dataset is at this name now'
bound 300 3 64 1G
exec "${run[@]}" /usr/sbin/zfs "$verb" -- "$2" "$1"

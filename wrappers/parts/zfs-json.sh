[[ -x /usr/sbin/zfs ]] || die 69 'zfs is not installed here'
version=$(/usr/bin/timeout --kill-after=3 10 /usr/sbin/zfs version 2>/dev/null || true)
has_json() { [[ $version =~ ^zfs-([0-9]{1,3})\.([0-9]{1,3}) ]] &&
  ((BASH_REMATCH[1] > 2 || BASH_REMATCH[1] == 2 && BASH_REMATCH[2] >= 3)); }
readonly ZFS=(/usr/bin/timeout --kill-after=3 60 /usr/sbin/zfs)

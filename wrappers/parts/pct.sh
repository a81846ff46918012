[[ -x /usr/sbin/pct ]] || die 69 'pct is not installed here'
umask 022 # what pct makes has the modes that a shell of root would give it
is_vmid() { [[ $1 =~ ^[1-9][0-9]{2,8}$ ]]; }

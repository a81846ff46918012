umask 022 # what packages make has the modes that a shell of root would give it
(($# == 2)) || die 64 'exactly 2 arguments are needed'
is_package "$1" || die 64 'the package is not a whole name'
[[ $2 =~ ^[0-9a-f]{64}$ ]] || die 64 'the hash of the transaction has another form'
log "$@"
[[ $here =~ ^/[A-Za-z0-9/._-]+$ ]] || die 69 'the directory of the wrappers cannot be named to apt'
facts=$'\n'$("$here/apt-inspect" "$verb" "$1")$'\n'
[[ $facts == *$'\ntransaction\t'"$2"$'\n'* ]] || die 75 'apt would do something else now'
version=${facts#*$'\nto\t'}
version=${version%%$'\n'*}
readonly ASKED=$here/apt-inspect # right before dpkg gets the packages, by apt
# shellcheck disable=SC2054 # dpkg's own commas
readonly HELD=(
  -o APT::Get::Remove=false -o DPkg::Lock::Timeout=0 -o Dpkg::Use-Pty=false
  -o APT::Keep-Downloaded-Packages=false
  -o "DPkg::Pre-Install-Pkgs::=$ASKED held $2"
  -o "DPkg::Tools::Options::$ASKED::Version=3" -o "DPkg::Tools::Options::$ASKED::InfoFD=20"
  -o DPkg::Options::=--refuse-confnew,confdef,confask,confmiss -o DPkg::Options::=--force-confold
)
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true HOME=/root
export APT_LISTCHANGES_FRONTEND=none NEEDRESTART_SUSPEND=1 # nothing restarts but by the packages
code=0
"${run[@]}" /usr/bin/apt-get "${DECIDED[@]}" "${HELD[@]}" --yes --quiet install -- \
  "$1=$version" || code=$?
((code)) || exit 0
read_broken
((${#broken[@]} == 0)) || die 70 "left unfinished: $(IFS=, && printf '%s' "${broken[*]:0:5}")"
exit "$code"

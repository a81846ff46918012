[[ -x /usr/bin/apt-get && -x /usr/bin/dpkg-query ]] || die 69 'apt is not installed here'
is_package() { # a whole name; no version, release, architecture, task, pattern or path
  [[ ${#1} -le 128 && $1 =~ ^[a-z0-9][a-z0-9+.-]*[a-z0-9+]$ ]]
}

# How apt decides what a transaction is; the same here and in the wrappers that run it.
readonly DECIDED=(
  -o APT::Get::AllowUnauthenticated=false -o APT::Get::allow-downgrades=false
  -o APT::Get::allow-remove-essential=false -o APT::Get::allow-change-held-packages=false
  -o APT::Get::force-yes=false -o APT::Get::AutomaticRemove=false -o APT::Get::Fix-Broken=false
  -o APT::Get::Fix-Missing=false -o APT::Get::ReInstall=false -o APT::Get::Purge=false
)
# shellcheck disable=SC2016 # dpkg's own fields
readonly STATES='${db:Status-Status} ${binary:Package}\n'
read_broken() { # the packages that dpkg has begun and not finished, into `broken`
  local status name
  broken=()
  while read -r status name; do
    [[ $status =~ ^(installed|not-installed|config-files)$ ]] || broken+=("$name is $status")
  done < <(/usr/bin/timeout --kill-after=3 60 /usr/bin/dpkg-query --show --showformat="$STATES")
}

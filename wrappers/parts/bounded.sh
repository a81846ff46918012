bound() { # SECONDS GRACE TASKS MEMORY: in `run`, what bounds a change; systemd does where it runs
  run=(/usr/bin/timeout --kill-after="$2" "$1")
  [[ ! -d /run/systemd/system ]] || run=(/usr/bin/systemd-run --quiet --scope --collect
    -p RuntimeMaxSec="$1" -p TimeoutStopSec=3 -p TasksMax="$3" -p MemoryMax="$4" --)
}

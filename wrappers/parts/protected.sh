# Root's own list of what is never changed, the file `protected` beside this one, which the installation
# writes: an adapter and a pattern a line.
read_protected() { # ADAPTER [BEFORE AFTER]: its patterns, and those of containers between two others
  local file=$here/protected mode adapter pattern code
  [[ -f $file && ! -L $file && -O $file ]] || die 77 'there is no list of what is protected'
  mode=$(/usr/bin/stat --format=%a -- "$file")
  [[ $mode =~ ^[0-7]?[0-7][0145][0145]$ ]] ||
    die 77 'others may write the list of what is protected'
  while read -r adapter pattern || [[ -n $adapter ]]; do
    [[ $adapter == "$1" || ($adapter == pct && $# -eq 3) ]] || continue
    code=0
    matches x "$pattern" || code=$?
    [[ -n $pattern && $code -le 1 ]] || die 77 'the list of what is protected cannot be understood'
    [[ $adapter == "$1" ]] || pattern="$2($pattern)$3"
    protected+=("$pattern")
  done <"$file"
}

is_protected() { # NAME
  local pattern
  for pattern in "${protected[@]}"; do
    ! matches "$1" "$pattern" || return 0
  done
  return 1
}

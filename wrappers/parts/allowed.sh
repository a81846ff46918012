# Root's own list of what is allowed, the file `allowed` beside this one. What it means and its format:
# docs/reference/root-list.md.
matches() { # NAME PATTERN, as a whole; 1: it does not, 2: the pattern is none
  [[ $1 =~ ^($2)$ ]]
}
root_names=() root_decisions=()
read_root_list() { # the list, once; whatever is wrong with it, nothing is allowed
  local file=$here/allowed facts word rest version='' owner=0
  [[ -n $caller ]] || owner="($EUID)|0"
  [[ -f $file && ! -L $file && -r $file ]] ||
    die 77 "there is no list of root's; \`host-agent root render\`"
  facts=$(/usr/bin/stat --format='%u %a' -- "$file")
  [[ $facts =~ ^($owner)\ [0-7]?[0-7][0145][0145]$ ]] ||
    die 77 "others than root may write root's list; nothing is allowed"
  while read -r word rest || [[ -n $word ]]; do
    case $word in
      '' | '#'*) ;;
      version) version+=$rest ;;
      names) root_names+=("$rest") ;;
      allowed | never) root_decisions+=("$word $rest") ;;
      *) die 77 "root's list has a line that is not understood; \`host-agent root render\`" ;;
    esac
  done <"$file"
  [[ $version == 1 ]] ||
    die 77 "root's list is of another version; \`host-agent root render\`"
}

fits() { # 1: a name, 2: a pattern. A pattern that is none ends it: it might have been a `never`
  local code=0
  matches "$1" "$2" || code=$?
  ((code <= 1)) || die 77 "root's list has a pattern that is none; \`host-agent root render\`"
  return "$code"
}

is_named() { # 1: a family, 2: a name of it
  local line naming
  for line in "${root_names[@]}"; do
    [[ $line == "$1 "* ]] || continue
    naming=${line#"$1 "}
    case $1 in
      pct)
        [[ $naming =~ ^([1-9][0-9]{2,8})-([1-9][0-9]{2,8})$ ]] ||
          die 77 "root's list has a line that is not understood; \`host-agent root render\`"
        (($2 < BASH_REMATCH[1] || $2 > BASH_REMATCH[2])) || return 0
        ;;
      git | exec) [[ $naming != "$2" ]] || return 0 ;;
      *) ! fits "$2" "$naming" || return 0 ;;
    esac
  done
  return 1
}

require_named() { # 1: a family, 2...: names of it
  local name
  for name in "${@:2}"; do
    is_named "$1" "$name" || die 77 "root's list does not name it; \`host-agent root render\`"
  done
}

require_allowed() { # 1: an operation, 2: the resource that rules see, if it has one
  local line operations pattern
  for line in "${root_decisions[@]}"; do
    operations=${line#* }
    operations=${operations%% *}
    pattern=${line#*" $operations"}
    pattern=${pattern# }
    [[ ,$operations, == *,"$1",* || ,$operations, == *,"${1%%.*}.*,"* ]] || continue
    [[ -z $pattern || $# -eq 2 ]] || continue
    [[ -z $pattern ]] || fits "$2" "$pattern" || continue
    [[ $line != allowed\ * ]] || return 0
    break
  done
  die 77 "root's list does not allow it; \`host-agent root render\`"
}

is_unit() { # a whole name; no template, escape, pattern or path
  local name='[A-Za-z0-9_][A-Za-z0-9:_.-]*'
  local types='service|socket|timer|mount|path|target|slice|scope|swap|automount|device'
  [[ ${#1} -le 255 && $1 =~ ^$name(@$name)?\.($types)$ ]]
}
[[ -x /usr/bin/systemctl ]] || die 69 'systemd is not installed here'

is_dataset() { # by the name rules of OpenZFS, with neither space nor %
  [[ ${#1} -le 255 && /${1//@//}/ != */./* && /${1//@//}/ != */../* && ${1%%[/@]*} != log &&
    $1 =~ ^[A-Za-z][A-Za-z0-9_.:-]*(/[A-Za-z0-9_.:-]+)*(@[A-Za-z0-9_.:-]+)?$ &&
    ! $1 =~ ^(mirror|raidz|draid|spare) ]]
}
is_mode() { [[ $1 == one || $1 == recursive ]]; }
is_tag() { [[ ${#1} -le 255 && $1 =~ ^[A-Za-z0-9_:][A-Za-z0-9_.:-]*$ ]]; }

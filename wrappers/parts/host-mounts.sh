# The service has mounts of its own; what is changed here concerns those of the host.
[[ /proc/self/ns/mnt -ef /proc/1/ns/mnt ]] || run+=(/usr/bin/nsenter --target 1 --mount --)

#!/bin/sh
# probe.sh ready: the node takes commands.  A replica whose master is away still does.
# probe.sh alive: the node answers anything.  Loading, busy with a script, full: all of that is
# alive, and a restart would only make it worse.
set -u
# shellcheck source=common.sh
. "${CONF_FOLDER:-/etc/shardcluster}/common.sh"

cli=$(find_tool cli) || exit 1
read_password
answer=$(timeout 4 "$cli" -h 127.0.0.1 -p "$port" PING 2>&1) || [ -n "$answer" ] || exit 1
case $1:$answer in
*:PONG) ;;
# A new password is in the engine at once, and in this pod's file some seconds later.
ready:*WRONGPASS*) ;;
# The client may print a failed login before the answer, so the words may stand anywhere.
alive:*LOADING* | alive:*BUSY* | alive:*NOAUTH* | alive:*WRONGPASS* | alive:*MASTERDOWN* | \
    alive:*MISCONF* | alive:*NOPERM* | alive:*ERR*) ;;
*)
    say "not $1: ${answer:-no answer}"
    exit 1
    ;;
esac

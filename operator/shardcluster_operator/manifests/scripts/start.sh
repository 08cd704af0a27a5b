#!/bin/sh
# Starts this node's engine.
#
# A node without storage that comes back must not come back as what it was: its memory is gone, but
# its folder (and in it the node's id) outlives the container.  Under its old id it would keep its
# slots without their data, and its replica would copy the emptiness.  So a former master waits
# until its old id owns nothing any more, or until no replica is left that has something to lose;
# then it begins under a new id.  A node that nobody answers waits on: silence is no evidence.
set -eu
# shellcheck source=common.sh
. "${CONF_FOLDER:-/etc/shardcluster}/common.sh"

poll_s=${GUARD_POLL_S:-0.3}
asked_max=8      # nodes besides its own replicas; one that knows is enough
rounds_a_line=30 # of log, while it waits
ran=$data/ran

# A shell that is process 1 ignores SIGTERM unless it says otherwise.
trap 'exit 143' TERM INT

server=$(find_tool server) || exit 1
cli=$(find_tool cli) || exit 1
[ -n "${POD_IP:-}" ] || die "POD_IP is not set"
read_password
cd "$data"

# Two engines in one folder would destroy it.  The lock is the engine's own: it ends with it.
if command -v flock >/dev/null; then
    exec 9>"$data/.lock"
    flock -n 9 || say "waiting for another server to leave $data"
    until flock -n 9; do sleep 1; done
fi

# Of the node's own line in nodes.conf: its id and its first slot, if it was a master with slots.
old_master() {
    awk '
        $3 ~ /(^|,)myself(,|$)/ && $3 ~ /(^|,)master(,|$)/ {
            for (i = 9; i <= NF; i++) if ($i !~ /^\[/) { print $1, $i + 0; exit }
        }' nodes.conf
}

# known_nodes ID: "heir HOST PORT" of each replica of it, then "other HOST PORT" of some others.
known_nodes() {
    awk -v id="$1" -v most="$asked_max" '
        NF < 8 || $1 == "vars" || $3 ~ /myself|noaddr|handshake/ { next }
        {
            address = $2
            sub(/[@,].*/, "", address)
            host = address
            sub(/:[0-9]*$/, "", host)
            sub(/.*:/, "", address)
            if (host == "") next
            if ($4 == id) print "heir", host, address
            else if (others++ < most) print "other", host, address
        }' nodes.conf
}

# judge ID SLOT: of a node's CLUSTER NODES and DBSIZE on standard input, what it says of that id.
#   free            the id owns nothing any more
#   held            the id still owns slots
#   heir REPLICA    this replica of it is not known to have failed
#   empty REPLICA   it is the one that answered, and it has no keys
#   copy            the same, with keys
judge() {
    awk -v id="$1" -v slot="$2" '
        NF >= 8 && length($1) == 40 {
            flags = "," $3 ","
            owns = 0
            for (i = 9; i <= NF; i++) if ($i !~ /^\[/) {
                owns = 1
                ends = split($i, range, "-")
                if ($1 != id && range[1] + 0 <= slot + 0 && slot + 0 <= range[ends] + 0) taken = 1
            }
            if ($1 == id) { known = 1; held = owns }
            if ($4 == id && flags !~ /,fail,/) heirs[$1] = 1
            if ($4 == id && flags ~ /,myself,/) mine = $1
        }
        NF == 1 && $1 ~ /^[0-9]+$/ { keys = $1; counted = 1 }
        END {
            # A node that has just joined knows few others: that it knows nothing of the id proves
            # nothing, unless it knows who has its slots now.
            if (known ? !held : taken) { print "free"; exit }
            if (!known) exit
            print "held"
            for (heir in heirs) print "heir", heir
            if (mine != "") print (counted && keys == 0 ? "empty " mine : "copy")
        }'
}

# One word on what all answers say together: start, wait, or silence.
verdict() {
    awk '
        $1 == "heir" { heirs[$2] = 1 }
        $1 == "empty" { empty[$2] = 1 }
        { said[$1] = 1 }
        END {
            for (heir in heirs) if (!(heir in empty)) left = 1
            if ("copy" in said) print "wait"
            else if ("free" in said) print "start"
            else if ("held" in said) print (left ? "wait" : "start")
            else print "silence"
        }'
}

# ask_all ID SLOT: asks the nodes on standard input ("KIND HOST PORT") at once; prints `judge`'s.
ask_all() {
    rm -f "$run"/answer.*
    number=0
    while read -r _ host at; do
        number=$((number + 1))
        printf 'CLUSTER NODES\nDBSIZE\n' | ask 2 "$host" "$at" | judge "$1" "$2" \
            >"$run/answer.$number" &
    done
    wait
    cat "$run"/answer.* 2>/dev/null || :
}

# When all addresses in nodes.conf are old ones, the name of all nodes gives the present ones.
by_name() {
    [ -n "${SHARDCLUSTER_NODES_HOST:-}" ] && command -v getent >/dev/null || return 0
    getent ahosts "$SHARDCLUSTER_NODES_HOST" | awk -v self="$POD_IP" -v port="$port" '
        $1 != self && !seen[$1]++ { print "other", $1, port }' | head -n "$asked_max"
}

# wait_until_replaced ID SLOT
wait_until_replaced() {
    known_nodes "$1" >"$run/known"
    grep -q '^heir' "$run/known" || {
        say "this node was master without a replica: starting empty under a new id"
        return 0
    }
    round=0
    while :; do
        found=$(ask_all "$1" "$2" <"$run/known" | verdict)
        if [ "$found" = silence ]; then
            by_name >"$run/named"
            found=$(ask_all "$1" "$2" <"$run/named" | verdict)
        fi
        [ "$found" != start ] || break
        if [ $((round % rounds_a_line)) -eq 0 ]; then
            case $found in
            wait) say "waiting for a replica to take over what this node had as ${1}" ;;
            *) say "waiting: no other node answers for ${1}" ;;
            esac
        fi
        round=$((round + 1))
        sleep "$poll_s"
    done
    say "${1} is not needed any more: starting empty under a new id"
}

if [ "${SHARDCLUSTER_MEMORY_ONLY:-no}" = yes ] && [ -e "$ran" ]; then
    kept=nodes.conf # what a replica or an unused master is known by; it has nothing to lose
    if [ ! -s nodes.conf ]; then
        kept=
    else
        was=$(old_master)
        if [ -n "$was" ]; then
            # shellcheck disable=SC2086 # two words: id and slot
            wait_until_replaced $was
            kept=
        fi
    fi
    # Files of an earlier copy would bring old data back to life.
    for entry in "$data"/* ; do
        [ "$entry" = "$data/$kept" ] || [ "$entry" = "$ran" ] || rm -rf "$entry"
    done
fi
: >"$ran"

# Every byte of the password written as its number, so that none means anything to the parser.
umask 077
quoted=$(printf %s "$password" | od -An -v -tx1 | tr -d ' \n' | sed 's/../\\x&/g')
printf 'requirepass "%s"\nmasterauth "%s"\n' "$quoted" "$quoted" >"$run/auth.conf"
unset VALKEYCLI_AUTH REDISCLI_AUTH password quoted

exec "$server" "$conf/valkey.conf" --include "$run/auth.conf" --dir "$data" \
    --cluster-announce-ip "$POD_IP"

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
others_max=8     # nodes asked that have no copy; one that knows is enough
heirs_max=32     # nodes asked that may have one
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

# Of the node's own line in nodes.conf, if it was a master with slots: its id, its first slot, its
# epoch (the number that grows with every change of owners).
old_master() {
    awk '
        $3 ~ /(^|,)myself(,|$)/ && $3 ~ /(^|,)master(,|$)/ {
            for (i = 9; i <= NF; i++) if ($i !~ /^\[/) { print $1, $i + 0, $7; exit }
        }' nodes.conf
}

# known_nodes ID: "HOST PORT" of those whom to ask: all that may have a copy of what this node had
# (its replicas, and masters without slots, whose change to a replica it may not have heard of),
# and some others.
known_nodes() {
    awk -v id="$1" -v most="$others_max" '
        NF < 8 || $1 == "vars" || $3 ~ /myself|noaddr|handshake/ { next }
        {
            host = $2
            sub(/[@,].*/, "", host)
            at = host
            sub(/.*:/, "", at)
            sub(/:[0-9]*$/, "", host)
            if (host == "") next
            if ($4 == id || ($3 ~ /master/ && NF == 8) || others++ < most) print host, at
        }' nodes.conf
}

# judge ID SLOT EPOCH: of a node's CLUSTER NODES and DBSIZE on standard input, what it says.
#   free                 others own what the id owned; later than the id itself knew
#   held                 the id still owns slots
#   heir ID HOST PORT    a replica of the id, or a node without slots, that has not failed
#   copy                 it is itself a replica of the id, with keys
#   settled ID           it is not, so that as an heir it needs no waiting for
judge() {
    awk -v id="$1" -v slot="$2" -v epoch="$3" '
        NF >= 8 && length($1) == 40 {
            flags = "," $3 ","
            owns = has = 0
            for (i = 9; i <= NF; i++) if ($i !~ /^\[/) {
                owns = 1
                ends = split($i, range, "-")
                if (range[1] + 0 <= slot + 0 && slot + 0 <= range[ends] + 0) has = 1
            }
            if ($1 == id) { known = 1; held = owns; next }
            if (has) { taken = 1; if ($7 + 0 > epoch + 0) taken_later = 1 }
            if (flags ~ /,myself,/) { self = $1; mine = ($4 == id) }
            if (flags !~ /,(fail|noaddr|handshake),/ && ($4 == id || (flags ~ /,master,/ && !owns))) {
                host = $2
                sub(/[@,].*/, "", host)
                at = host
                sub(/.*:/, "", at)
                sub(/:[0-9]*$/, "", host)
                heirs[$1] = host " " at
            }
        }
        NF == 1 && $1 ~ /^[0-9]+$/ { keys = $1; counted = 1 }
        END {
            if (self == "") exit
            # A node that has not heard of the last change yet, or that has just joined, says
            # nothing for certain: hence the epoch, and hence an owner by name.
            if (known ? (!held && taken_later) : taken) print "free"
            if (held) print "held"
            for (heir in heirs) print "heir", heir, heirs[heir]
            print (mine && !(counted && keys == 0) ? "copy" : "settled " self)
        }'
}

# One word on what all answers say together: start, wait, or silence.
verdict() {
    awk '
        { said[$1] = 1 }
        $1 == "heir" { heirs[$2] = 1 }
        $1 == "settled" { settled[$2] = 1 }
        END {
            for (heir in heirs) if (!(heir in settled)) left = 1
            if ("copy" in said) print "wait"
            else if ("free" in said) print "start"
            else if ("held" in said) print (left ? "wait" : "start")
            else print "silence"
        }' "$run/answers"
}

# ask_all ID SLOT EPOCH: asks the nodes on standard input ("HOST PORT") at once.
ask_all() {
    rm -f "$run"/answer.*
    number=0
    while read -r host at; do
        number=$((number + 1))
        printf 'CLUSTER NODES\nDBSIZE\n' | ask 2 "$host" "$at" | judge "$@" \
            >"$run/answer.$number" &
    done
    wait
    cat "$run"/answer.* >"$run/answers" 2>/dev/null || :
}

# When all addresses in nodes.conf are old ones, the name of all nodes gives the present ones.
by_name() {
    [ -n "${SHARDCLUSTER_NODES_HOST:-}" ] && command -v getent >/dev/null || return 0
    getent ahosts "$SHARDCLUSTER_NODES_HOST" | awk -v self="$POD_IP" -v port="$port" '
        $1 != self && !seen[$1]++ { print $1, port }' | head -n "$others_max"
}

# wait_until_replaced ID SLOT EPOCH
wait_until_replaced() {
    known_nodes "$1" >"$run/known"
    if [ ! -s "$run/known" ]; then
        say "this node was alone: starting empty under a new id"
        return 0
    fi
    : >"$run/heirs"
    round=0
    while :; do
        cat "$run/known" "$run/heirs" | sort -u >"$run/asked"
        ask_all "$@" <"$run/asked"
        found=$(verdict)
        if [ "$found" = silence ]; then
            by_name >"$run/asked"
            ask_all "$@" <"$run/asked"
            found=$(verdict)
        fi
        [ "$found" != start ] || break
        # Those that others named are asked next time.
        awk '$1 == "heir" { print $3, $4 }' "$run/answers" | head -n "$heirs_max" >"$run/heirs"
        if [ $((round % rounds_a_line)) -eq 0 ]; then
            case $found in
            wait) say "waiting for a replica to take over what this node had as ${1}" ;;
            *) say "waiting: no other node can tell what became of ${1}" ;;
            esac
        fi
        round=$((round + 1))
        sleep "$poll_s"
    done
    say "${1} is not needed any more: starting empty under a new id"
}

# forget_imports ID SLOT EPOCH: a master with storage that has been replaced takes the marks of slots
# that it was importing out of its file.  The engine lets an importing node take a slot by itself,
# under the highest epoch, once the slot's source has it no more: so it would win its shard back.
# One that still leads needs them: without them it would delete the keys that have come already.
forget_imports() {
    known_nodes "$1" >"$run/known"
    ask_all "$@" <"$run/known"
    grep -q '^free' "$run/answers" || return 0
    say "${1} was replaced: forgetting the slots that it was importing"
    sed 's/ \[[0-9]*-<-[0-9a-f]*\]//g' nodes.conf >nodes.conf.new
    mv nodes.conf.new nodes.conf
}

# A replica in the file gets the shard id of the master that it follows.  Some engines (Valkey before
# the end of its issue 2171) hold a file for corrupt in which they differ, and never start again; they
# write such files themselves, about nodes that changed whom they follow as others were away.
agree_on_shards() {
    awk '
        NR == FNR {
            if (NF >= 8 && match($2, /shard-id=[0-9a-f]+/)) id[$1] = substr($2, RSTART, RLENGTH)
            if (NF >= 8) follows[$1] = $4
            next
        }
        {
            for (top = $1; NF >= 8 && follows[top] in id && hops++ < 16; ) top = follows[top]
            hops = 0
            if ($1 in id && id[$1] != id[top]) { sub(/shard-id=[0-9a-f]+/, id[top]); mended = 1 }
            print
        }
        END { exit !mended }' nodes.conf nodes.conf >nodes.conf.new || return 0
    say "nodes of one shard had several shard ids in nodes.conf: they have their master's now"
    mv nodes.conf.new nodes.conf
}

if [ "${SHARDCLUSTER_MEMORY_ONLY:-no}" = yes ] && [ -e "$ran" ]; then
    kept=nodes.conf # what a replica or an unused master is known by; it has nothing to lose
    if [ ! -s nodes.conf ]; then
        kept=
    else
        was=$(old_master)
        if [ -n "$was" ]; then
            # shellcheck disable=SC2086 # three words: id, slot, epoch
            wait_until_replaced $was
            kept=
        fi
    fi
    # Files of an earlier copy would bring old data back to life.
    for entry in "$data"/* ; do
        [ "$entry" = "$data/$kept" ] || [ "$entry" = "$ran" ] || rm -rf "$entry"
    done
fi
if [ "${SHARDCLUSTER_MEMORY_ONLY:-no}" != yes ] && grep -q -e '-<-' nodes.conf 2>/dev/null; then
    was=$(old_master)
    # shellcheck disable=SC2086 # three words: id, slot, epoch
    [ -z "$was" ] || forget_imports $was
fi
[ ! -s nodes.conf ] || agree_on_shards
: >"$ran"

# Every byte of the password written as its number, so that none means anything to the parser.
umask 077
quoted=$(printf %s "$password" | od -An -v -tx1 | tr -d ' \n' | sed 's/../\\x&/g')
printf 'requirepass "%s"\nmasterauth "%s"\n' "$quoted" "$quoted" >"$run/auth.conf"
unset VALKEYCLI_AUTH REDISCLI_AUTH password quoted

exec "$server" "$conf/valkey.conf" --include "$run/auth.conf" --dir "$data" \
    --cluster-announce-ip "$POD_IP"

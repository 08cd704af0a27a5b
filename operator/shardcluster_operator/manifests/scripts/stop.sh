#!/bin/sh
# Before this node is stopped: a master hands its slots to its most advanced replica and waits until
# it is a replica itself, so that no write is lost and clients wait for a moment only.  When there
# is nothing to hand over, or nobody to take it, it ends at once; only data that is in memory alone
# waits for a replica that is away.
set -u
# shellcheck source=common.sh
. "${CONF_FOLDER:-/etc/shardcluster}/common.sh"

total_tenths=${HANDOVER_TENTHS:-200} # of a second: the engine's own hand-over takes up to 5 s
again_tenths=20                      # a request that was lost, or a replica that ended meanwhile

cli=$(find_tool cli) || exit 0
read_password

is_master() { [ "$(ask_self ROLE | head -n 1)" = master ]; }

owns_slots() {
    ask_self CLUSTER NODES | awk '
        $3 ~ /(^|,)myself(,|$)/ { for (i = 9; i <= NF; i++) if ($i !~ /^\[/) found = 1 }
        END { exit !found }'
}

# Whether it knows of any, be they down: one that is on its way back can still save the data.
had_replicas() {
    ask_self CLUSTER NODES | awk '
        $3 ~ /(^|,)myself(,|$)/ { self = $1 }
        { masters[$4] = 1 }
        END { exit !(self in masters) }'
}

# The address of the replica that has most of what was written; nothing when none is connected.
best_replica() {
    ask_self INFO replication | tr -d '\r' | awk -F '[:,]' '
        /^slave[0-9]+:/ {
            split("", field)
            line = $0
            sub(/^[^:]*:/, "", line)
            count = split(line, pairs, ",")
            for (i = 1; i <= count; i++) {
                at = index(pairs[i], "=")
                field[substr(pairs[i], 1, at - 1)] = substr(pairs[i], at + 1)
            }
            if (field["state"] == "online" && (best == "" || field["offset"] + 0 > most)) {
                most = field["offset"] + 0
                best = field["ip"] " " field["port"]
            }
        }
        END { if (best != "") print best }'
}

tenths=0
while :; do
    if ! is_master; then
        # Clients that still take this node for the master learn of the new one by its MOVED; a
        # write that came in the moment the engine ends would have an unknown fate.
        sleep "${LINGER_S:-1.5}"
        is_master || exit 0 # the heir was being stopped, too, and handed everything back
    fi
    if [ $((tenths % again_tenths)) -eq 0 ]; then
        owns_slots || exit 0
        replica=$(best_replica)
        if [ -n "$replica" ]; then
            say "handing over to ${replica}"
            # shellcheck disable=SC2086 # two words: host and port
            ask 2 $replica CLUSTER FAILOVER >/dev/null
        elif [ "${SHARDCLUSTER_MEMORY_ONLY:-no}" = yes ] && had_replicas; then
            say "waiting for a replica: the data is in memory alone"
        else
            exit 0
        fi
    fi
    if [ "$tenths" -ge "$total_tenths" ]; then
        say "no replica has taken over in time"
        exit 0
    fi
    sleep 0.1
    tenths=$((tenths + 1))
done

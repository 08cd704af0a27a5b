#!/bin/sh
# Starts one node of the Compose service `valkey`.
#
# All nodes share one volume, and each takes a folder of its own in it.  A container is replaced
# by another one now and then, so a folder belongs to nobody for ever: it is taken by a lock that
# the server inherits and that ends with it.  Folders whose node owned slots are taken before
# those of replicas, and those before unused ones: with fewer containers than last time, no slots
# are left without a server while a copy of them, or nothing, has one.
set -eu

data=${DATA_FOLDER:-/data}
conf=${CONF_FILE:-/etc/shardcluster/valkey.conf}
folders_max=1000

# The kinds of folder, by what the node wrote of itself (`myself`) when it last ran.
owned_slots() { grep -Eq 'myself,master .* connected \[?[0-9]' "$1/nodes.conf" 2>/dev/null; }
was_replica() { grep -Eq 'myself,slave ' "$1/nodes.conf" 2>/dev/null; }
any() { :; }

# Leaves the lock open as descriptor 9 and the folder's path in $folder.
take_folder() {
    kind=$1
    number=0
    while [ "$number" -lt "$folders_max" ]; do
        folder=$data/node-$number
        number=$((number + 1))
        [ "$kind" = any ] || [ -d "$folder" ] || continue
        "$kind" "$folder" || continue
        mkdir -p "$folder"
        exec 9>"$folder/.lock"
        if flock -n 9; then
            return 0
        fi
        exec 9>&-
    done
    return 1
}

take_folder owned_slots || take_folder was_replica || take_folder any || {
    echo "start-valkey: all $folders_max folders in $data are in use." >&2
    exit 1
}
cd "$folder"

# Whether others have claimed, later than this node knew, every slot that it owned.  Their files say
# so, in the folders beside this one: nobody has to answer.
replaced() {
    awk -v own="$folder/nodes.conf" '
        $3 !~ /(^|,)myself(,|$)/ || $3 !~ /(^|,)master(,|$)/ { next }
        FILENAME == own { epoch = $7 }
        FILENAME != own && $7 + 0 <= epoch + 0 { next }
        {
            for (i = 9; i <= NF; i++) if ($i !~ /^\[/) {
                ends = split($i, range, "-")
                for (slot = range[1] + 0; slot <= range[ends] + 0; slot++)
                    if (FILENAME == own) { mine[slot]; owned = 1 } else delete mine[slot]
            }
        }
        END { for (slot in mine) left = 1; exit left || !owned }
    ' "$folder/nodes.conf" "$data"/node-*/nodes.conf
}

# A master that has been replaced takes the marks of slots that it was importing out of its file.
# The engine lets an importing node take a slot by itself, under the highest epoch, once the slot's
# source has it no more: so it would win its shard back.  One that still leads needs them: without
# them it would delete the keys that have come already.
if grep -q -e '-<-' nodes.conf 2>/dev/null && replaced; then
    echo "start-valkey: this node was replaced: forgetting the slots that it was importing"
    sed 's/ \[[0-9]*-<-[0-9a-f]*\]//g' nodes.conf >nodes.conf.new
    mv nodes.conf.new nodes.conf
fi

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
    echo "start-valkey: nodes of one shard had several shard ids: they have their master's now"
    mv nodes.conf.new nodes.conf
}
[ ! -s nodes.conf ] || agree_on_shards

# The address that the other containers and the gateway reach this one by.
address=${ANNOUNCE_IP:-$(hostname -i | cut -d ' ' -f 1)}
server=$(command -v valkey-server || command -v redis-server) || {
    echo "start-valkey: the image has neither valkey-server nor redis-server." >&2
    exit 1
}
echo "start-valkey: $address uses $folder"
exec "$server" "$conf" --dir "$folder" --cluster-announce-ip "$address" "$@"

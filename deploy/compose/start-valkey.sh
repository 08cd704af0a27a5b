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

# The address that the other containers and the gateway reach this one by.
address=${ANNOUNCE_IP:-$(hostname -i | cut -d ' ' -f 1)}
server=$(command -v valkey-server || command -v redis-server) || {
    echo "start-valkey: the image has neither valkey-server nor redis-server." >&2
    exit 1
}
echo "start-valkey: $address uses $folder"
exec "$server" "$conf" --dir "$folder" --cluster-announce-ip "$address" "$@"

# shellcheck shell=sh disable=SC2034
# What the scripts of a node share; sourced by them.  Folders and the port are variables, so that
# tests can run the very same scripts outside a container.

conf=${CONF_FOLDER:-/etc/shardcluster}
data=${DATA_FOLDER:-/data}
run=${RUN_FOLDER:-/run/shardcluster}
auth=${AUTH_FOLDER:-/etc/shardcluster-auth}
port=${NODE_PORT:-6379}

say() { echo "shardcluster: $*" >&2; }

die() {
    say "$*"
    exit 1
}

# The engine is Valkey or Redis; images have one of them.
find_tool() { command -v "valkey-$1" || command -v "redis-$1" || die "no valkey-$1, no redis-$1"; }

# Sets $password.  Blank space around it is no part of it: files made by hand end with a line break.
# The command line client takes it from the environment, where no other user can read it.
read_password() {
    password=$(cat "$auth/password") || die "the password can't be read"
    password=${password#"${password%%[![:space:]]*}"}
    password=${password%"${password##*[![:space:]]}"}
    [ -n "$password" ] || die "the password is empty"
    export VALKEYCLI_AUTH="$password" REDISCLI_AUTH="$password"
}

# ask SECONDS HOST PORT [WORD…]: one command, or those on standard input; fails without an answer.
ask() {
    seconds=$1 host=$2 at=$3
    shift 3
    timeout "$seconds" "$cli" -h "$host" -p "$at" "$@" 2>/dev/null
}

ask_self() { ask 2 127.0.0.1 "$port" "$@"; }

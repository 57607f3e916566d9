# shellcheck shell=bash
# Owns: messages, exit codes, the cache folder and its locks.
# Invariants:
#   C1  a file in the cache appears under its final name only when it is complete (written beside, then renamed).
#   C2  two runs that fill the same part of the cache are serialised by a lock on that part, never on the whole run:
#       boots themselves may overlap.
# Why: a killed download or build must leave nothing that a later run takes for the real thing.

readonly EXIT_SCENARIO=1 EXIT_USAGE=2 EXIT_MISSING=3 EXIT_BOOT=4

CACHE=${FRAMESHIFT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/frameshift/xenhost}

log() { [[ ${QUIET:-0} == 1 ]] || printf 'xenhost: %s\n' "$*" >&2; }

# die CODE MESSAGE...
die() {
    local code=$1
    shift
    printf 'xenhost: error: %s\n' "$*" >&2
    exit "$code"
}

usage_error() { die $EXIT_USAGE "$* (see --help)"; }

# require COMMAND PACKAGE: a tool that the build host must have.
require() {
    command -v "$1" >/dev/null || die $EXIT_MISSING "'$1' is missing; install it with: apt-get install $2"
}

# is_count STRING: a positive decimal without sign or leading zero.
is_count() { [[ $1 =~ ^[1-9][0-9]{0,8}$ ]]; }
is_index() { [[ $1 =~ ^(0|[1-9][0-9]{0,4})$ ]]; }

now_ms() { local t=$EPOCHREALTIME; t=${t/[.,]/}; echo $((t / 1000)); }

# with_lock NAME COMMAND...: runs COMMAND under the lock of one part of the cache (C2).
with_lock() {
    local name=$1
    shift
    mkdir -p "$CACHE/locks" || die $EXIT_MISSING "cannot write the cache $CACHE (set FRAMESHIFT_CACHE)"
    (
        flock 9 || die $EXIT_MISSING "cannot lock $CACHE/locks/$name"
        "$@"
    ) 9>"$CACHE/locks/$name"
}

# hash_of FILE...: one hash over contents; the name under which a generated file is cached.
hash_of() { cat -- "$@" | sha256sum | cut -c1-24; }

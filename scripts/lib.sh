# shellcheck shell=bash
# What scripts/run, scripts/test and scripts/cluster share: messages, installing, building, and the
# private PostgreSQL cluster. A cluster belongs to one folder, its home, which holds
#   secrets   the passwords of its roles (0600)
#   place     where its data are: "." or, for a home that `postgres` cannot reach, an absolute folder
#   socket    the folder of its socket, chosen anew at each start
# Nothing here prints a password or passes one in an argument, and only processes that these scripts
# started are signalled, by pid. File descriptor 9 is a home's lock: no child inherits it.

# shellcheck disable=SC2119,SC2120  # arguments here are optional

set -euo pipefail
REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
unset "${!PG@}"   # a PGHOST or PGOPTIONS of the caller must not reach our psql or cluster
export LC_ALL=C.UTF-8

PG_OWNER=provost
PG_APP=provost_app
PG_PORT=5432
CLUSTER_HOME='' CLUSTER_USER='' CLUSTER_PLACE='' CLUSTER_DATA='' CLUSTER_SOCKET=''

# ---- messages ------------------------------------------------------------------------------------

say() { printf '%s\n' "$*"; }
warn() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { warn "$*"; exit 1; }
now_ms() { local t=${EPOCHREALTIME/[.,]/}; printf '%s' "${t%???}"; }

# Prints what runs, then how long it took when that was more than two seconds.
step() {
    local title=$1 start rc=0 ms
    shift
    say "$title ..."
    start=$(now_ms)
    run_long "$@" || rc=$?
    ms=$(($(now_ms) - start))
    ((rc != 0)) || ((ms < 2000)) || say "$title: done in $((ms / 1000)) s"
    return "$rc"
}

# Bash runs a trap only when the foreground command ends, so what may take long runs beside it, in a
# process group of its own, and is waited for. stop_child ends it.
CHILD=
run_long() {
    local rc=0
    set -m
    "$@" 9>&- </dev/null &
    CHILD=$!
    set +m
    wait "$CHILD" || rc=$?
    CHILD=
    return "$rc"
}

stop_child() {
    [ -n "$CHILD" ] || return 0
    kill -TERM -- "-$CHILD" 2>/dev/null || true
    wait_gone "$CHILD" "${CHILD_PATIENCE_MS:-3000}" || kill -KILL -- "-$CHILD" 2>/dev/null || true
    CHILD=
}

# A process is gone when it has ended, be it reaped or not.
is_gone() {
    local stat
    [ -n "$1" ] || return 0
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
    stat=${stat##*) }
    [ "${stat%% *}" = Z ]
}

wait_gone() { # pid milliseconds
    local end=$(($(now_ms) + $2))
    until is_gone "$1"; do
        (($(now_ms) < end)) || return 1
        sleep 0.02
    done
}

# ---- installing ----------------------------------------------------------------------------------

MISSING=()
need_command() { command -v "$1" >/dev/null 2>&1 || MISSING+=("$2"); }
need_module() { pkg-config --exists "$1" 2>/dev/null || MISSING+=("$2"); }
need_python() { /usr/bin/python3 -c "import $1" 2>/dev/null || MISSING+=("$2"); }

# The newest PostgreSQL that is there, from 15 on; empty when there is none.
find_postgres() {
    local dir best=
    for dir in $(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V); do
        [ -x "$dir/initdb" ] || continue
        [ "$(basename "$(dirname "$dir")")" -lt 15 ] || best=$dir
    done
    printf '%s' "$best"
}

need_to_build() {
    need_command gcc gcc
    need_command meson meson
    need_command ninja ninja-build
    need_command pkg-config pkg-config
    [ -e /usr/include/stdio.h ] || MISSING+=(libc6-dev)
    need_module libmicrohttpd libmicrohttpd-dev
    need_module libpq libpq-dev
    need_module json-c libjson-c-dev
    need_module inih libinih-dev
    need_module libxxhash libxxhash-dev
    need_module libsodium libsodium-dev
    need_module libcrypto libssl-dev
    need_module jansson libjansson-dev
    need_module cjose libcjose-dev
    need_module zlib zlib1g-dev
    need_module libbrotlienc libbrotli-dev
    need_module check check
}

need_to_serve() {
    [ -n "$(find_postgres)" ] || MISSING+=(postgresql-15)
}

need_to_test() {
    need_command clang clang
    compgen -G '/usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.fuzzer-*.a' >/dev/null ||
        MISSING+=(libclang-rt-14-dev)
    need_python pytest python3-pytest
    need_python xdist python3-pytest-xdist
    need_python psycopg2 python3-psycopg2
    need_python cryptography python3-cryptography
    need_command node nodejs
    need_command npm npm
    need_command chromium chromium
    need_command wrk wrk
    need_command curl curl
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

apt_get() {
    local log rc=0
    log=$(mktemp)
    as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
        apt-get -q -y -o DPkg::Lock::Timeout=120 "$@" >"$log" 2>&1 </dev/null || rc=$?
    [ "$rc" = 0 ] || tail -n 20 "$log" >&2
    rm -f "$log"
    return "$rc"
}

# Installs what need_* found missing; never upgrades, removes or restarts what is there.
install_missing() {
    [ "${#MISSING[@]}" != 0 ] || return 0
    command -v apt-get >/dev/null || die "missing: ${MISSING[*]} (there is no apt-get to install them with)"
    [ "$(id -u)" = 0 ] || command -v sudo >/dev/null ||
        die "missing: ${MISSING[*]}; as root: apt-get install ${MISSING[*]}"
    say "Installing ${MISSING[*]} ..."
    apt_get update || warn "apt-get update failed; trying with the lists that are there"
    if [[ " ${MISSING[*]} " == *" postgresql-15 "* ]]; then
        install_with_postgres
    else
        apt_install "${MISSING[@]}"
    fi
    MISSING=()
}

apt_install() {
    apt_get install --no-install-recommends --no-upgrade --no-remove "$@" ||
        die "apt-get install $* failed"
}

# Debian's package creates and starts a cluster of its own when it is installed. Ours is private, and
# the machine's services are not our business: for the time of the installation its configuration says
# so, and no init script is run. Both are put back as they were.
install_with_postgres() (
    conf=/etc/postgresql-common/createcluster.conf policy=/usr/sbin/policy-rc.d
    [ -e "$conf" ] || apt_install postgresql-common
    trap 'restore_postgres_common "$conf" "$policy"' EXIT
    as_root cp -p "$conf" "$conf.provost-saved"
    echo 'create_main_cluster = false' | as_root tee -a "$conf" >/dev/null
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\n# provost: remove me\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
    fi
    apt_install "${MISSING[@]}"
)

restore_postgres_common() {
    [ ! -e "$1.provost-saved" ] || as_root mv "$1.provost-saved" "$1"
    ! grep -qs 'provost: remove me' "$2" || as_root rm -f "$2"
}

# ---- building ------------------------------------------------------------------------------------

# Configures a build folder once and brings it up to date, one script at a time; the output is shown when
# that fails.
build_dir() ( # folder [meson options]
    cd "$REPO"
    dir=$1 log=$1/provost-build.log
    shift
    mkdir -p "$dir"
    exec 8>>"$dir/provost-build.lock"
    flock 8
    if [ ! -e "$dir/build.ninja" ]; then
        rm -rf "$dir/meson-private"     # of a configuration that was cut short
        meson setup "$dir" "$@" >"$log" 2>&1 8>&- </dev/null || { tail -n 8 "$log" >&2; exit 1; }
    fi
    ninja --quiet -C "$dir" >"$log" 2>&1 8>&- </dev/null || { tail -n 60 "$log" >&2; exit 1; }
)

# ---- the cluster ---------------------------------------------------------------------------------

# Runs a command as the user that owns the cluster, from a folder that everyone may enter.
as_cluster_user() (
    cd /
    if [ "$(id -un)" = "$CLUSTER_USER" ]; then
        exec "$@" 9>&-
    fi
    exec setpriv --reuid="$CLUSTER_USER" --regid="$(id -g "$CLUSTER_USER")" --init-groups "$@" 9>&-
)

open_home() { # folder
    if [ ! -d "$1" ]; then
        mkdir -p "$1" || die "cannot create $1"
        # `postgres` has to pass through a home of root's.
        if [ "$(id -u)" = 0 ]; then chmod 0711 "$1"; else chmod 0700 "$1"; fi
    fi
    CLUSTER_HOME=$(cd "$1" && pwd -P)
    [ -w "$CLUSTER_HOME" ] || die "cannot write to $CLUSTER_HOME"
}

# Finds out where the home's cluster lives and who runs it.
cluster_open() { # home
    open_home "$1"
    CLUSTER_USER=$(id -un)
    [ "$CLUSTER_USER" != root ] || CLUSTER_USER=postgres
    cluster_find_place
    CLUSTER_DATA=$CLUSTER_PLACE/data
    # The folder of a home made as a user stays that user's when root runs it.
    [ ! -d "$CLUSTER_DATA" ] || CLUSTER_USER=$(stat -c %U "$CLUSTER_DATA")
    PG_BIN=$(find_postgres)
    if [ -e "$CLUSTER_DATA/PG_VERSION" ]; then
        PG_BIN=/usr/lib/postgresql/$(cat "$CLUSTER_DATA/PG_VERSION")/bin
    fi
    [ -x "$PG_BIN/postgres" ] || die "no PostgreSQL at $PG_BIN for the data of $CLUSTER_HOME"
    CLUSTER_SOCKET=$(cat "$CLUSTER_HOME/socket" 2>/dev/null || true)
    cluster_secrets
}

cluster_find_place() {
    local place
    if [ ! -e "$CLUSTER_HOME/place" ]; then
        place=.
        if ! as_cluster_user test -x "$CLUSTER_HOME"; then
            place=/var/lib/provost-$(printf '%s' "$CLUSTER_HOME" | sha256sum | cut -c1-12)
            # A folder of that name is what is left of a home that was removed.
            cluster_end_processes "$place/data"
            rm -rf "$place"
            mkdir -m 0711 "$place"
        fi
        write_private "$CLUSTER_HOME/place" <<<"$place"
    fi
    place=$(cat "$CLUSTER_HOME/place")
    [ "$place" != . ] || place=$CLUSTER_HOME
    CLUSTER_PLACE=$place
}

write_private() { # file, content from stdin: complete or not there
    (umask 077 && cat >"$1.new.$$")
    mv -f "$1.new.$$" "$1"
}

random_word() { od -An -N20 -tx1 /dev/urandom | tr -d ' \n'; }

cluster_secrets() {
    local file=$CLUSTER_HOME/secrets
    if [ ! -e "$file" ]; then
        [ ! -e "$CLUSTER_DATA" ] || die "$file is gone; remove $CLUSTER_HOME to start anew"
        write_private "$file" <<<"$(random_word) $(random_word)"
    fi
    read -r OWNER_PASSWORD APP_PASSWORD <"$file"
}

# Creates the cluster where there is none. It is built under another name and then renamed, so that one
# cut short is never taken for a whole one.
cluster_init() {
    local new rc=0
    [ ! -d "$CLUSTER_DATA" ] || return 0
    rm -rf "$CLUSTER_PLACE"/data.new.* 2>/dev/null || true
    new=$(mktemp -d "$CLUSTER_PLACE/data.new.XXXXXX")
    (umask 077 && printf '%s\n' "$OWNER_PASSWORD" >"$new.password")
    chown "$CLUSTER_USER" "$new" "$new.password"
    run_long as_cluster_user "$PG_BIN/initdb" --pgdata="$new" --username="$PG_OWNER" \
        --pwfile="$new.password" --auth=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8 \
        --no-instructions >"$CLUSTER_HOME/initdb.log" 2>&1 || rc=$?
    rm -f "$new.password"
    if [ "$rc" != 0 ]; then
        tail -n 20 "$CLUSTER_HOME/initdb.log" >&2
        die "initdb failed"
    fi
    as_cluster_user tee -a "$new/postgresql.conf" >/dev/null <<<"include 'provost.conf'"
    mv "$new" "$CLUSTER_DATA"
}

# The socket lies beside the data, unless that path is too long for a sockaddr_un (107 bytes) or has
# characters that lists of folders and hosts give a meaning to.
cluster_socket_dir() {
    local dir=$CLUSTER_PLACE/run
    if [ "${#dir}" -gt 85 ] || [[ $dir == *[!A-Za-z0-9/._-]* ]]; then
        dir=$CLUSTER_SOCKET
        if [ ! -d "$dir" ] || [ "$(stat -c %U "$dir")" != "$CLUSTER_USER" ]; then
            dir=$(as_cluster_user mktemp -d /tmp/provost-XXXXXX)
        fi
    elif [ ! -d "$dir" ]; then
        mkdir -m 0700 "$dir"
        chown "$CLUSTER_USER" "$dir"
    fi
    CLUSTER_SOCKET=$dir
    write_private "$CLUSTER_HOME/socket" <<<"$dir"
}

cluster_configure() { # [name=value ...]
    local setting
    {
        echo "# Written by scripts/lib.sh at every start."
        echo "listen_addresses = ''"
        echo "port = $PG_PORT"
        echo "unix_socket_directories = '$CLUSTER_SOCKET'"
        echo "unix_socket_permissions = 0700"
        echo "shared_preload_libraries = 'pg_stat_statements'"
        echo "password_encryption = 'scram-sha-256'"
        echo "timezone = 'UTC'"
        echo "log_timezone = 'UTC'"
        echo "shared_buffers = 256MB"
        # Not "$user": the owner is called provost, and what he creates does not belong in the schema provost.
        echo "search_path = 'public'"
        for setting in "$@"; do
            echo "${setting%%=*} = '${setting#*=}'"
        done
    } | as_cluster_user tee "$CLUSTER_DATA/provost.conf" >/dev/null
}

# The pid of the cluster's postmaster, or nothing. The number in postmaster.pid may by now belong to
# another process; a postmaster's working folder is its data.
cluster_pid() { # data folder
    local pid
    read -r pid 2>/dev/null <"$1/postmaster.pid" || return 0
    [ "$(readlink "/proc/$pid/cwd" 2>/dev/null)" != "$1" ] || printf '%s' "$pid"
}

cluster_processes() { # data folder
    local process cwd
    find /proc -maxdepth 2 -path '/proc/[0-9]*/cwd' -printf '%h %l\n' 2>/dev/null |
        while read -r process cwd; do
            [ "$cwd" != "$1" ] || printf '%s\n' "${process#/proc/}"
        done
}

# Ends what a killed run left behind: a postmaster without a script, or backends without a postmaster.
cluster_end_processes() { # data folder
    local pid
    pid=$(cluster_pid "$1")
    if [ -n "$pid" ]; then
        kill -INT "$pid" 2>/dev/null || true
        wait_gone "$pid" 8000 || kill -QUIT "$pid" 2>/dev/null || true
        wait_gone "$pid" 3000 || kill -KILL "$pid" 2>/dev/null || true
    fi
    for pid in $(cluster_processes "$1"); do
        wait_gone "$pid" 2000 || kill -KILL "$pid" 2>/dev/null || true
        wait_gone "$pid" 2000 || die "process $pid of $1 does not end"
    done
    # With none of its processes left, the file only names a pid that may be somebody else's now.
    rm -f "$1/postmaster.pid"
}

cluster_start() { # [name=value ...]
    cluster_end_processes "$CLUSTER_DATA"
    cluster_socket_dir
    rm -f "$CLUSTER_SOCKET"/.s.PGSQL.*     # its lock file names a pid as well
    cluster_configure "$@"
    (umask 077 && : >>"$CLUSTER_HOME/postgres.log")
    if ! run_long cluster_launch; then
        tail -n 10 "$CLUSTER_HOME/postgres.log" >&2
        die "the database cluster did not start"
    fi
}

# Its log is opened here, since its user may be unable to reach the home.
cluster_launch() {
    as_cluster_user "$PG_BIN/pg_ctl" start -w -t 60 -s -D "$CLUSTER_DATA" >>"$CLUSTER_HOME/postgres.log" 2>&1
}

cluster_stop() { # [fast|immediate], at most four seconds
    local pid signal=INT
    [ -n "$CLUSTER_DATA" ] || return 0
    pid=$(cluster_pid "$CLUSTER_DATA")
    if [ -n "$pid" ]; then
        [ "${1:-fast}" = fast ] || signal=QUIT
        kill -CONT "$pid" 2>/dev/null || true
        kill -"$signal" "$pid" 2>/dev/null || true
        wait_gone "$pid" 3000 || kill -QUIT "$pid" 2>/dev/null || true
        wait_gone "$pid" 800 || kill -KILL "$pid" 2>/dev/null || true
    fi
    for pid in $(cluster_processes "$CLUSTER_DATA"); do
        kill -QUIT "$pid" 2>/dev/null || true     # such as one that has not yet written postmaster.pid
    done
    [ "$CLUSTER_SOCKET" = "$CLUSTER_PLACE/run" ] || [ -z "$CLUSTER_SOCKET" ] || rm -rf "$CLUSTER_SOCKET"
}

# A connection URL over the cluster's socket.
cluster_url() { # role database
    local password=$OWNER_PASSWORD
    [ "$1" = "$PG_OWNER" ] || password=$APP_PASSWORD
    printf 'postgresql://%s:%s@/%s?host=%s&port=%s' \
        "$1" "$password" "$2" "${CLUSTER_SOCKET//\//%2F}" "$PG_PORT"
}

cluster_psql() { # database [psql arguments]
    local database=$1
    shift
    PGHOST=$CLUSTER_SOCKET PGPORT=$PG_PORT PGUSER=$PG_OWNER PGPASSWORD=$OWNER_PASSWORD \
        "$PG_BIN/psql" -X -q -v ON_ERROR_STOP=1 -d "$database" "$@" 9>&-
}

cluster_ask() { cluster_psql "$1" -A -t -c "$2"; }

demo_version() { cat "$REPO/config/demo/schema.sql" "$REPO/config/demo/generate.sql" | sha256sum | cut -c1-12; }

# Loads the demo into a database that appears under its name only when it is whole.
cluster_load() { # database scale
    local database=$1 scale=$2
    [ -z "$(cluster_ask postgres "SELECT 1 FROM pg_database WHERE datname = '$database'")" ] || return 0
    cluster_create_roles
    cluster_psql postgres -c "SET client_min_messages = error" \
        -c "DROP DATABASE IF EXISTS ${database}_new WITH (FORCE)" -c "CREATE DATABASE ${database}_new"
    step "Loading the schema and the demo data, scale $scale" cluster_load_demo "${database}_new" "$scale" ||
        die "the demo data could not be loaded"
    cluster_psql postgres -c "COMMENT ON DATABASE ${database}_new IS 'scale=$scale demo=$(demo_version)'" \
        -c "ALTER DATABASE ${database}_new RENAME TO $database"
}

cluster_load_demo() { # database scale
    PGOPTIONS='-c synchronous_commit=off -c client_min_messages=warning' cluster_psql "$1" -o /dev/null \
        -c 'CREATE EXTENSION IF NOT EXISTS pg_stat_statements' \
        -v "scale=$2" -f "$REPO/config/demo/schema.sql" -f "$REPO/config/demo/generate.sql" || return 1
    cluster_psql "$1" -c CHECKPOINT
}

# The server's own role: no superuser, owner of nothing.
cluster_create_roles() {
    cluster_psql postgres <<SQL
SELECT pg_is_in_recovery() AS standby \gset
\if :standby
\quit
\endif
SELECT 'CREATE ROLE $PG_APP LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '$PG_APP') \gexec
ALTER ROLE $PG_APP NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD '$APP_PASSWORD';
SQL
}

# All rights to read, for tests and benchmarks, whose tables come and go.
# Tests read what they like as the server's role; it writes what the endpoints do.
cluster_grant() { # database
    local binary=${PROVOST_BINARY:-$REPO/build/provost} url grants
    cluster_psql "$1" -c "GRANT SELECT ON ALL TABLES IN SCHEMA public TO $PG_APP" \
        -c "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO $PG_APP"
    [ -x "$binary" ] || { warn "$binary is not built: no schema provost, nothing to write"; return; }
    url=$(cluster_url "$PG_OWNER" "$1")
    PROVOST_DATABASE_URL=$url "$binary" schema install >/dev/null
    grants=$(PROVOST_DATABASE_URL=$url "$binary" grants print --config "$REPO/config/provost.ini" --role "$PG_APP")
    cluster_psql "$1" -o /dev/null -1 -c "$grants"
}

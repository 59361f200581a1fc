#!/usr/bin/env bash
# Runs the tests marked `services` against a PostgreSQL 15 and a Redis from Debian's packages: own instances on free loopback ports
# in a temporary folder, stopped by their pids. The roles are made as docs/operations.md asks an operator to make them.
set -euo pipefail
cd "$(dirname "$0")/.."
PG=/usr/lib/postgresql/15/bin

if [ ! -x "$PG/initdb" ] || ! command -v redis-server >/dev/null; then
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "Install PostgreSQL 15 and Redis first (Debian: apt-get install postgresql-15 redis-server)." >&2
    exit 1
  fi
  export DEBIAN_FRONTEND=noninteractive
  # The packages would start servers of their own; ours are enough.
  mkdir -p /etc/postgresql-common
  grep -qs '^create_main_cluster = false' /etc/postgresql-common/createcluster.conf \
    || echo 'create_main_cluster = false' >>/etc/postgresql-common/createcluster.conf
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends postgresql-15 redis-server >/dev/null
fi

free_port() { .venv/bin/python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
# An array and not a function: a function in the background is a shell of its own, and signals would not reach the server.
as_plain=()
if [ "$(id -u)" = 0 ]; then as_plain=(setpriv --reuid=postgres --regid=postgres --clear-groups --); fi

work=$(mktemp -d /tmp/sbx-services-XXXXXX)
pg_pid="" redis_pid=""
finish() {
  if [ -n "$redis_pid" ]; then kill -TERM "$redis_pid" 2>/dev/null || true; fi
  if [ -n "$pg_pid" ]; then kill -INT "$pg_pid" 2>/dev/null || true; fi
  for pid in $redis_pid $pg_pid; do wait "$pid" 2>/dev/null || true; done
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

password=$(.venv/bin/python -c 'import secrets; print(secrets.token_urlsafe(18))')
(umask 077; printf %s "$password" >"$work/key")
if [ "$(id -u)" = 0 ]; then chown -R postgres:postgres "$work"; fi
pg_port=$(free_port)
"${as_plain[@]}" "$PG/initdb" -D "$work/data" -U boot -A scram-sha-256 --pwfile="$work/key" -E UTF8 --locale=C.UTF-8 --no-sync >"$work.log" 2>&1 \
  || { cat "$work.log" >&2; exit 1; }
rm -f "$work.log"
"${as_plain[@]}" "$PG/postgres" -D "$work/data" -h 127.0.0.1 -p "$pg_port" -k "$work" -c max_connections=200 -c fsync=off 2>"$work/postgres.log" &
pg_pid=$!
export PGPASSWORD=$password
sql() { "$PG/psql" -qX -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$pg_port" -U boot -d "${2:-postgres}" -c "$1"; }
for _ in $(seq 200); do
  if sql 'select' >/dev/null 2>&1; then break; fi
  kill -0 "$pg_pid" 2>/dev/null || { cat "$work/postgres.log" >&2; exit 1; }
  sleep 0.1
done
sql "create role signalbox_owner login createdb password '$password'"
sql "create role signalbox_web login password '$password'"
sql "create role signalbox_engine login password '$password'"
sql "grant pg_signal_backend to signalbox_owner"  # the tests drop their database while others may still be connected
sql "create database signalbox owner signalbox_owner"
unset PGPASSWORD

redis_port=$(free_port)
redis-server --bind 127.0.0.1 --port "$redis_port" --save '' --appendonly no --daemonize no >/dev/null 2>&1 &
redis_pid=$!

url() { echo "postgresql://signalbox_$1:$password@127.0.0.1:$pg_port/signalbox"; }
DATABASE_URL=$(url web) DATABASE_ENGINE_URL=$(url engine) DATABASE_OWNER_URL=$(url owner) REDIS_URL="redis://127.0.0.1:$redis_port/0" \
  .venv/bin/pytest tests --ignore=tests/bench -m services "$@"

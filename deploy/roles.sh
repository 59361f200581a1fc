#!/bin/sh
# Run once by the image of PostgreSQL, when its volume is empty: the three plain roles and the database (docs/operations.md).
set -eu
: "${OWNER_PASSWORD:?}" "${WEB_PASSWORD:?}" "${ENGINE_PASSWORD:?}"
psql --username postgres --no-psqlrc --set ON_ERROR_STOP=1 \
  --set owner="$OWNER_PASSWORD" --set web="$WEB_PASSWORD" --set engine="$ENGINE_PASSWORD" <<'SQL'
create role signalbox_owner login password :'owner';
create role signalbox_web login password :'web';
create role signalbox_engine login password :'engine';
create database signalbox owner signalbox_owner;
SQL

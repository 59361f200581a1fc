"""SQL that gives each entry of the audit trail its place in its chain when the change commits. Used by the migration.

Two deferred triggers. The first runs among the checks of a commit and only notes the entry; its note fires the second when all those
checks are through. The second waits for the one lock over all chains, and then nothing in that transaction waits for anything: it
cannot be part of a deadlock, and a transaction holds the lock for its commit alone (docs/adr/0013).
"""

LOCK = 815_003  # advisory; held from the last step of a commit to its end

# The same line as `tenants.chain.line`.
LINE = """
create function audit_line(e tenants_auditentry, seq bigint) returns text language sql stable set search_path = public, pg_temp as $$
  select '[' || concat_ws(',', seq::text, e.id::text,
    coalesce(to_json(e.tenant_id::text)::text, 'null'),
    to_json(to_char(e.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))::text,
    to_json(e.actor::text)::text, to_json(e.action::text)::text, to_json(e.object_kind::text)::text, to_json(e.object_id::text)::text,
    coalesce(to_json(e.before::text)::text, 'null'), coalesce(to_json(e.after::text)::text, 'null'),
    to_json(e.reason::text)::text, to_json(e.request_id::text)::text) || ']'
$$;
"""

# Run by the owner, whoever commits: no role that serves may write a link, a head or a note.
LINK = """
create function audit_link(entry bigint) returns void language plpgsql security definer set search_path = public, pg_temp as $$
declare
  e tenants_auditentry;
  place uuid;
  last tenants_audithead;
  made bytea;
begin
  select * into strict e from tenants_auditentry where id = entry;
  place := coalesce(e.tenant_id, '00000000-0000-0000-0000-000000000000'::uuid);
  select * into last from tenants_audithead where chain = place;
  if not found then
    last.seq := 0;
    last.hash := decode(repeat('00', 32), 'hex');
  end if;
  made := sha256(last.hash || convert_to(audit_line(e, last.seq + 1), 'UTF8'));
  insert into tenants_auditlink (entry_id, chain, seq, prev, hash) values (entry, place, last.seq + 1, last.hash, made);
  insert into tenants_audithead (chain, seq, hash) values (place, last.seq + 1, made)
    on conflict (chain) do update set seq = excluded.seq, hash = excluded.hash;
end $$;
revoke execute on function audit_link(bigint) from public;
"""

TRIGGERS = f"""
create function audit_note() returns trigger language plpgsql security definer set search_path = public, pg_temp as $$
begin
  insert into tenants_auditnote (entry_id) values (new.id);
  return null;
end $$;
create function audit_noted() returns trigger language plpgsql security definer set search_path = public, pg_temp as $$
begin
  perform pg_advisory_xact_lock({LOCK});
  perform audit_link(new.entry_id);
  delete from tenants_auditnote where entry_id = new.entry_id;
  return null;
end $$;
create constraint trigger tenants_auditentry_noted after insert on tenants_auditentry
  deferrable initially deferred for each row execute function audit_note();
create constraint trigger tenants_auditnote_linked after insert on tenants_auditnote
  deferrable initially deferred for each row execute function audit_noted();
"""

# What was written before there were chains, in the order of its writing. Heads come last: a row that one transaction changes a
# million times is slower with each change.
EXISTING = """
do $$
declare
  e tenants_auditentry;
  place uuid;
  present uuid;
  n bigint;
  last bytea;
  made bytea;
begin
  for e in select * from tenants_auditentry order by tenant_id nulls first, id loop
    place := coalesce(e.tenant_id, '00000000-0000-0000-0000-000000000000'::uuid);
    if present is distinct from place then
      n := 0;
      last := decode(repeat('00', 32), 'hex');
      present := place;
    end if;
    n := n + 1;
    made := sha256(last || convert_to(audit_line(e, n), 'UTF8'));
    insert into tenants_auditlink (entry_id, chain, seq, prev, hash) values (e.id, place, n, last, made);
    last := made;
  end loop;
  insert into tenants_audithead (chain, seq, hash)
    select distinct on (chain) chain, seq, hash from tenants_auditlink order by chain, seq desc;
end $$;
"""

UNDO = """
drop trigger tenants_auditnote_linked on tenants_auditnote;
drop trigger tenants_auditentry_noted on tenants_auditentry;
drop function audit_noted();
drop function audit_note();
drop function audit_link(bigint);
drop function audit_line(tenants_auditentry, bigint);
"""

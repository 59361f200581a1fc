from django.db import migrations

# Whoever moves a run (an engine, a person, a sweep), what its caller is to be told is written in the same transaction, with what
# was true at that moment. Only these states ask, and they ask for one row by its key.
CALLS_BACK = """
create or replace function run_calls_back() returns trigger language plpgsql as $$
declare
  asked jsonb;
begin
  select callback into asked from run_input where run_id = new.id;
  if asked is null or jsonb_typeof(asked) <> 'object' then return null; end if;
  insert into console_delivery (id, tenant_id, kind, event, run_id, url, secret_name, body)
  values (
    -- as tenants.ids.new_id: 48 bits of milliseconds, then random ones
    (lpad(to_hex((extract(epoch from clock_timestamp()) * 1000)::bigint), 12, '0')
      || right(replace(gen_random_uuid()::text, '-', ''), 20))::uuid,
    new.tenant_id, 'callback', 'run.' || new.state, new.id, asked->>'url', asked->>'secret_name',
    jsonb_build_object('at', to_char(clock_timestamp() at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
      'state', new.state, 'outcome', new.outcome, 'stop', new.stop, 'seq', new.seq, 'step', new.step));
  perform pg_notify('signalbox_outbox', '');
  return null;
end $$;
drop trigger if exists run_calls_back on run;
create trigger run_calls_back after update of state on run for each row
  when (old.state is distinct from new.state and new.state in ('succeeded', 'failed', 'cancelled', 'waiting_approval',
    'waiting_budget', 'needs_reconciliation', 'paused', 'quarantined'))
  execute function run_calls_back();
"""


class Migration(migrations.Migration):
    dependencies = [("console", "0002_deliveries"), ("runs", "0007_limits")]
    operations = [migrations.RunSQL(CALLS_BACK, "drop trigger run_calls_back on run; drop function run_calls_back()")]

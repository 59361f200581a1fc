from django.db import migrations

# Whoever ends a run (an engine, a person, a sweep), its settlement is written in the same transaction. Ends are seldom beside
# entries, and only runs that hold a reservation have one.
SETTLE = """
create or replace function run_settles() returns trigger language plpgsql as $$
begin
  insert into tenants_settlement (run_id, spent_micro)
  select new.id, new.cost_micro where exists (select 1 from tenants_reservation where run_id = new.id)
  on conflict (run_id) do nothing;
  return null;
end $$;
drop trigger if exists run_settles on run;
create trigger run_settles after update of state on run for each row
  when (old.state is distinct from new.state and new.state in ('succeeded', 'failed', 'cancelled')) execute function run_settles();
"""


class Migration(migrations.Migration):
    dependencies = [("runs", "0007_limits"), ("tenants", "0003_ceilings")]
    operations = [migrations.RunSQL(SETTLE, "drop trigger run_settles on run; drop function run_settles()")]

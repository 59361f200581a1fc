"""Events are found by their time, and the history of a run that ended long ago may go: whole, and never without a trace.

Nobody may delete events. What may is one function of the owner's, and the trigger lets it only where the run's tombstone stands.
"""

import django.contrib.postgres.indexes
import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models

from tenants.protect import append_only

FORGET = """
create or replace function refuse_history() returns trigger language plpgsql as $$
begin
  if tg_op = 'DELETE' and exists (select from runs_deletedhistory d where d.run_id = old.run_id) then
    return old;
  end if;
  raise exception '% is append only', tg_table_name using errcode = 'SBX02';
end $$;
create or replace trigger event_append_only before update or delete on event for each row execute function refuse_history();
create or replace trigger runs_observation_append_only before update or delete on runs_observation
  for each row execute function refuse_history();

create or replace function forget_runs(wanted uuid[], before timestamptz) returns uuid[]
language plpgsql security definer set search_path = pg_catalog, public as $$
declare gone uuid[];
begin
  if before is null or before > statement_timestamp() - interval '1 day' then
    raise exception 'history is kept for a day at least' using errcode = 'SBX03';
  end if;
  select array_agg(r.id) into gone from (
    select id from run where id = any(wanted) and state in ('succeeded', 'failed', 'cancelled') and ended_at < before
    order by id for update) r;
  insert into runs_deletedhistory (run_id, tenant_id, agent, outcome, ended_at)
    select id, tenant_id, agent_id, outcome, ended_at from run where id = any(gone);
  delete from event where run_id = any(gone);
  delete from runs_observation where run_id = any(gone);
  return coalesce(gone, '{}');
end $$;
revoke all on function forget_runs(uuid[], timestamptz) from public;
"""


class Migration(migrations.Migration):
    dependencies = [("runs", "0011_undo")]
    operations = [
        migrations.AddIndex(
            model_name="event",
            index=django.contrib.postgres.indexes.BrinIndex(fields=["at"], name="event_at", pages_per_range=32),
        ),
        migrations.AddIndex(
            model_name="runinput",
            index=models.Index(fields=["retry_of"], condition=models.Q(("retry_of__isnull", False)), name="run_input_retry_of"),
        ),
        migrations.CreateModel(
            name="Retention",
            fields=[
                (
                    "tenant",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE, primary_key=True, serialize=False, to="tenants.tenant"
                    ),
                ),
                ("history_days", models.PositiveIntegerField()),
            ],
            options={
                "constraints": [models.CheckConstraint(condition=models.Q(("history_days__gte", 1)), name="history_kept_a_day")],
            },
        ),
        migrations.CreateModel(
            name="DeletedHistory",
            fields=[
                ("run_id", models.UUIDField(primary_key=True, serialize=False)),
                ("tenant_id", models.UUIDField()),
                ("agent", models.CharField(max_length=64)),
                ("outcome", models.CharField(max_length=24)),
                ("ended_at", models.DateTimeField()),
                ("deleted_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={"verbose_name_plural": "deleted histories"},
        ),
        migrations.RunSQL(append_only("runs_deletedhistory"), migrations.RunSQL.noop),
        migrations.RunSQL(FORGET, migrations.RunSQL.noop),
    ]

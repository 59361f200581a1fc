import django.contrib.postgres.fields
import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models

import tenants.ids

# A permission's group is a row of the approvers' groups: neither room knows the other, the database knows both.
GROUP = """
alter table tools_permission add column group_named varchar(64) generated always as (nullif("group", '')) stored;
alter table tools_permission add constraint permission_names_a_group foreign key (tenant_id, group_named)
  references approvals_group (tenant_id, name) deferrable initially immediate;
"""
NO_GROUP = "alter table tools_permission drop constraint permission_names_a_group, drop column group_named"

# What happens is written to the outbox in the transaction in which it happens, once for each channel that listens. The address of
# a message is its channel (`channel://<id>/`): where that leads is looked up when it is sent, and stands in no log.
TELL = """
create or replace function tell_channels(of_tenant uuid, of_event text, of_run uuid, moment jsonb) returns void language plpgsql as $$
begin
  insert into console_delivery (id, tenant_id, channel_id, kind, event, run_id, url, secret_name, body)
  select (lpad(to_hex((extract(epoch from clock_timestamp()) * 1000)::bigint), 12, '0')
      || right(replace(gen_random_uuid()::text, '-', ''), 20))::uuid,
    of_tenant, c.id, c.kind, of_event, of_run, 'channel://' || c.id || '/', c.secret_name,
    jsonb_build_object('at', to_char(clock_timestamp() at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')) || moment
  from console_channel c where c.tenant_id = of_tenant and c.enabled and c.events @> array[of_event]::varchar[];
  if found then perform pg_notify('signalbox_outbox', ''); end if;
end $$;
"""

# A request that a standing grant or its own edit answers in the same transaction is told to nobody, so this one looks when it ends.
ASKED = """
create or replace function approval_asked() returns trigger language plpgsql as $$
begin
  if exists (select 1 from approvals_approval where id = new.id and state = 'pending') then
    perform tell_channels(new.tenant_id, 'approval.requested', new.run_id, jsonb_build_object('approval', new.id));
  end if;
  return null;
end $$;
create constraint trigger approval_asked after insert on approvals_approval deferrable initially deferred
  for each row when (new.state = 'pending') execute function approval_asked();
"""

MOVED = """
create or replace function approval_moved() returns trigger language plpgsql as $$
declare
  about jsonb := jsonb_build_object('approval', new.id);
begin
  if new.reminders > old.reminders then
    perform tell_channels(new.tenant_id, 'approval.reminder', new.run_id, about || jsonb_build_object('reminder', new.reminders));
  end if;
  if old.escalated_at is null and new.escalated_at is not null then
    perform tell_channels(new.tenant_id, 'approval.escalated', new.run_id, about);
  end if;
  if old.state = 'pending' and new.state in ('approved', 'rejected') and new.grant_id is null then
    perform tell_channels(new.tenant_id, 'approval.decided', new.run_id, about || jsonb_build_object('state', new.state));
  end if;
  if old.state = 'pending' and new.state = 'expired' then
    perform tell_channels(new.tenant_id, 'approval.expired', new.run_id, about);
  end if;
  return null;
end $$;
create trigger approval_moved after update of reminders, escalated_at, state on approvals_approval
  for each row execute function approval_moved();

create or replace function glass_broken() returns trigger language plpgsql as $$
begin
  perform tell_channels(new.tenant_id, 'approval.break_glass', a.run_id, jsonb_build_object('approval', new.approval_id))
    from approvals_approval a where a.id = new.approval_id;
  return null;
end $$;
create trigger glass_broken after insert on approvals_glassreview for each row execute function glass_broken();
"""

RUNS = """
create or replace function run_tells_channels() returns trigger language plpgsql as $$
begin
  perform tell_channels(new.tenant_id, 'run.' || new.state, new.id,
    jsonb_build_object('state', new.state, 'outcome', new.outcome, 'agent', new.agent_id));
  return null;
end $$;
create trigger run_tells_channels after update of state on run for each row
  when (old.state is distinct from new.state and new.state in ('succeeded', 'failed', 'cancelled', 'waiting_approval',
    'waiting_budget', 'needs_reconciliation', 'paused', 'quarantined'))
  execute function run_tells_channels();
"""
UNTELL = """
drop trigger run_tells_channels on run; drop function run_tells_channels();
drop trigger glass_broken on approvals_glassreview; drop function glass_broken();
drop trigger approval_moved on approvals_approval; drop function approval_moved();
drop trigger approval_asked on approvals_approval; drop function approval_asked();
drop function tell_channels(uuid, text, uuid, jsonb);
"""
KINDS = [("webhook", "Webhook"), ("slack", "Slack"), ("teams", "Microsoft Teams"), ("email", "E-mail")]


class Migration(migrations.Migration):
    dependencies = [
        ("console", "0004_backtests"),
        ("approvals", "0007_reviews"),
        ("tools", "0007_permission_group"),
        ("runs", "0010_edited"),
        ("tenants", "0003_ceilings"),
    ]
    operations = [
        migrations.CreateModel(
            name="Channel",
            fields=[
                ("id", models.UUIDField(default=tenants.ids.new_id, editable=False, primary_key=True, serialize=False)),
                ("name", models.CharField(max_length=64)),
                ("kind", models.CharField(choices=KINDS, max_length=10)),
                ("url", models.CharField(blank=True, default="", max_length=2000)),
                ("url_secret", models.CharField(blank=True, default="", max_length=100)),
                (
                    "addresses",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=254), blank=True, default=list, size=None
                    ),
                ),
                ("secret_name", models.CharField(blank=True, default="", max_length=100)),
                ("events", django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=60), default=list, size=None)),
                ("template", models.JSONField(null=True)),
                ("enabled", models.BooleanField(default=True)),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("tenant", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="tenants.tenant")),
            ],
            options={"constraints": [models.UniqueConstraint(fields=("tenant", "name"), name="one_channel_per_name")]},
        ),
        migrations.AddField(
            "delivery",
            "channel",
            models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, related_name="deliveries", to="console.channel"),
        ),
        migrations.RunSQL(GROUP, NO_GROUP),
        migrations.RunSQL(TELL + ASKED + MOVED + RUNS, UNTELL),
    ]

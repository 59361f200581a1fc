import django.contrib.postgres.fields
import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models

import tenants.ids
from tenants.protect import append_only

# Whoever listens is told in the transaction in which it happens. A platform's own incident has no tenant, so no channel of one.
INCIDENTS = """
create or replace function incident_tells() returns trigger language plpgsql as $$
declare
  happened text := case new.state when 'open' then 'opened' else new.state end;
begin
  perform tell_channels(new.tenant_id, 'incident.' || happened, null, jsonb_build_object('incident', new.id, 'state', new.state,
    'severity', new.severity, 'again', new.reopened > 0));
  return null;
end $$;
create trigger incident_opens after insert on console_incident for each row execute function incident_tells();
create trigger incident_moves after update of state on console_incident for each row
  when (old.state is distinct from new.state) execute function incident_tells();

create or replace function incident_shows() returns trigger language plpgsql as $$
begin
  perform pg_notify('signalbox_moved', '');
  return null;
end $$;
create trigger incident_shows_opened after insert on console_incident for each row execute function incident_shows();
create trigger incident_shows after update of state, owner_id, severity on console_incident for each row
  when ((old.state, old.owner_id, old.severity) is distinct from (new.state, new.owner_id, new.severity))
  execute function incident_shows();
"""
UNTELL_INCIDENTS = """
drop trigger incident_shows on console_incident; drop trigger incident_shows_opened on console_incident;
drop trigger incident_moves on console_incident; drop trigger incident_opens on console_incident;
drop function incident_shows(); drop function incident_tells();
"""

# A switch for every tenant is told to each, but not to one that does not see the agent or the tool that it names.
SWITCHES = """
create or replace function switch_tells() returns trigger language plpgsql as $$
declare
  happened text := case when new.lifted_at is null then 'switch.engaged' else 'switch.lifted' end;
begin
  perform tell_channels(t.id, happened, null, jsonb_build_object('switch', new.id))
  from tenants_tenant t
  where t.active and (new.tenant_id = t.id or new.tenant_id is null)
    and (new.agent = '' or exists (select from runs_agent a where a.name = new.agent and (a.tenants = '{}' or t.slug = any(a.tenants))))
    and (new.tool = '' or exists (select from tools_tool o where o.name = new.tool and (o.tenants = '{}' or t.slug = any(o.tenants))));
  return null;
end $$;
create trigger switch_goes_on after insert on runs_switch for each row execute function switch_tells();
create trigger switch_is_lifted after update of lifted_at on runs_switch for each row
  when (old.lifted_at is null and new.lifted_at is not null) execute function switch_tells();
"""
UNTELL_SWITCHES = """
drop trigger switch_is_lifted on runs_switch; drop trigger switch_goes_on on runs_switch; drop function switch_tells();
"""


class Migration(migrations.Migration):
    dependencies = [
        ("console", "0006_rollups"),
        ("runs", "0011_undo"),
        ("tenants", "0003_ceilings"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Detector",
            fields=[
                ("name", models.CharField(max_length=64, primary_key=True, serialize=False)),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("tool_errors", "A tool fails too often"),
                            ("steps_per_run", "Runs take more steps"),
                            ("cost_per_run", "Runs cost more"),
                            ("fallback_rate", "More runs fall back"),
                            ("budget_exceeded", "More runs meet their budget"),
                            ("duplicate_writes", "The same write is made twice"),
                            ("duplicate_answers", "More writes are answered as made already"),
                            ("retry_cascade", "Calls are sent again and again"),
                            ("unknown_outcomes", "Writes wait whose outcome is unknown"),
                            ("approvals_ageing", "Approvals wait too long"),
                            ("provider_degraded", "A model provider is degraded"),
                            ("provider_slow", "A model provider is slow"),
                            ("audit_chain", "The audit trail does not verify"),
                            ("release_guard", "A release under watch is worse"),
                        ],
                        max_length=24,
                    ),
                ),
                ("enabled", models.BooleanField(default=True)),
                (
                    "severity",
                    models.CharField(
                        choices=[("critical", "Critical"), ("major", "Major"), ("minor", "Minor")], default="major", max_length=8
                    ),
                ),
                ("runbook", models.CharField(blank=True, default="", max_length=64)),
                (
                    "tenants",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=63), blank=True, default=list, size=None
                    ),
                ),
                ("parameters", models.JSONField(blank=True, default=dict)),
            ],
        ),
        migrations.CreateModel(
            name="Incident",
            fields=[
                ("id", models.UUIDField(default=tenants.ids.new_id, editable=False, primary_key=True, serialize=False)),
                ("detector", models.CharField(blank=True, default="", max_length=64)),
                ("fingerprint", models.CharField(blank=True, default="", max_length=200)),
                ("title", models.CharField(max_length=200)),
                ("severity", models.CharField(choices=[("critical", "Critical"), ("major", "Major"), ("minor", "Minor")], max_length=8)),
                (
                    "state",
                    models.CharField(
                        choices=[("open", "Open"), ("acknowledged", "Acknowledged"), ("resolved", "Resolved")],
                        default="open",
                        max_length=12,
                    ),
                ),
                ("subject", models.JSONField(default=dict)),
                ("evidence", models.JSONField(default=dict)),
                ("runbook", models.CharField(blank=True, default="", max_length=64)),
                ("runbook_version", models.IntegerField(null=True)),
                ("value", models.FloatField(null=True)),
                ("worst", models.FloatField(null=True)),
                ("seen_at", models.DateTimeField(null=True)),
                ("clear_since", models.DateTimeField(null=True)),
                ("reopened", models.IntegerField(default=0)),
                ("opened_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("acknowledged_at", models.DateTimeField(null=True)),
                ("resolved_at", models.DateTimeField(null=True)),
                (
                    "opened_by",
                    models.ForeignKey(
                        null=True, on_delete=django.db.models.deletion.PROTECT, related_name="+", to=settings.AUTH_USER_MODEL
                    ),
                ),
                (
                    "owner",
                    models.ForeignKey(
                        null=True, on_delete=django.db.models.deletion.PROTECT, related_name="+", to=settings.AUTH_USER_MODEL
                    ),
                ),
                (
                    "resolved_by",
                    models.ForeignKey(
                        null=True, on_delete=django.db.models.deletion.PROTECT, related_name="+", to=settings.AUTH_USER_MODEL
                    ),
                ),
                ("tenant", models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, to="tenants.tenant")),
            ],
        ),
        migrations.CreateModel(
            name="IncidentEntry",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("opened", "Opened"),
                            ("acknowledged", "Acknowledged"),
                            ("assigned", "Assigned"),
                            ("note", "Note"),
                            ("action", "Action"),
                            ("step_ticked", "Step Ticked"),
                            ("value", "Value"),
                            ("changed", "Changed"),
                            ("resolved", "Resolved"),
                            ("reopened", "Reopened"),
                        ],
                        max_length=12,
                    ),
                ),
                ("text", models.TextField(blank=True, default="")),
                ("data", models.JSONField(default=dict)),
                (
                    "actor",
                    models.ForeignKey(
                        null=True, on_delete=django.db.models.deletion.PROTECT, related_name="+", to=settings.AUTH_USER_MODEL
                    ),
                ),
                ("incident", models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name="entries", to="console.incident")),
            ],
            options={
                "verbose_name_plural": "incident entries",
            },
        ),
        migrations.CreateModel(
            name="IncidentRun",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("run_id", models.UUIDField()),
                ("value", models.FloatField(null=True)),
                ("incident", models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name="runs", to="console.incident")),
            ],
        ),
        migrations.AddIndex(
            model_name="incident",
            index=models.Index(fields=["tenant", "-id"], name="incident_by_tenant"),
        ),
        migrations.AddIndex(
            model_name="incident",
            index=models.Index(condition=models.Q(("state__in", ["open", "acknowledged"])), fields=["tenant"], name="incident_live"),
        ),
        migrations.AddIndex(
            model_name="incident",
            index=models.Index(fields=["fingerprint", "-id"], name="incident_by_fingerprint"),
        ),
        migrations.AddConstraint(
            model_name="incident",
            constraint=models.UniqueConstraint(
                condition=models.Q(("state__in", ["open", "acknowledged"]), models.Q(("fingerprint", ""), _negated=True)),
                fields=("tenant", "fingerprint"),
                name="one_live_incident",
                nulls_distinct=False,
            ),
        ),
        migrations.AddIndex(
            model_name="incidententry",
            index=models.Index(fields=["incident", "id"], name="entry_of_incident"),
        ),
        migrations.AddConstraint(
            model_name="incidentrun",
            constraint=models.UniqueConstraint(fields=("incident", "run_id"), name="one_run_of_incident"),
        ),
        migrations.RunSQL(append_only("console_incidententry"), migrations.RunSQL.noop),
        migrations.RunSQL(INCIDENTS, UNTELL_INCIDENTS),
        migrations.RunSQL(SWITCHES, UNTELL_SWITCHES),
    ]

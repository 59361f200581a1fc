import django.db.models.functions.datetime
from django.db import migrations, models

# In the order in which runs end. Runs that go on are not in it, so that only the last write of a run pays for it.
RUN_ENDED = "create index run_ended on run (ended_at, id) where ended_at is not null"


class Migration(migrations.Migration):
    dependencies = [("console", "0008_runbooks"), ("runs", "0012_event_time")]
    operations = [
        migrations.RunSQL(RUN_ENDED, "drop index run_ended"),
        migrations.CreateModel(
            name="TelemetryExport",
            fields=[
                ("name", models.CharField(max_length=20, primary_key=True, serialize=False)),
                ("floor", models.DateTimeField()),
                ("lease_until", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("next_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("failures", models.IntegerField(db_default=0)),
                ("batch", models.IntegerField()),
                ("last_error", models.CharField(blank=True, db_default="", default="", max_length=200)),
                ("failed_at", models.DateTimeField(null=True)),
                ("sent", models.BigIntegerField(db_default=0)),
                ("sent_at", models.DateTimeField(null=True)),
                ("dropped", models.BigIntegerField(db_default=0)),
                ("dropped_at", models.DateTimeField(null=True)),
            ],
        ),
        migrations.CreateModel(
            name="TelemetrySent",
            fields=[
                ("run_id", models.UUIDField(primary_key=True, serialize=False)),
                ("ended_at", models.DateTimeField()),
            ],
            options={
                "verbose_name_plural": "telemetry sent",
                "indexes": [models.Index(fields=["ended_at"], name="telemetry_sent_at")],
            },
        ),
    ]

import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models

from tenants.chain_sql import EXISTING, LINE, LINK, TRIGGERS, UNDO
from tenants.protect import append_only


class Migration(migrations.Migration):
    dependencies = [
        ("tenants", "0003_ceilings"),
    ]

    operations = [
        migrations.CreateModel(
            name="AuditHead",
            fields=[
                ("chain", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ("seq", models.BigIntegerField()),
                ("hash", models.BinaryField()),
            ],
        ),
        migrations.CreateModel(
            name="AuditNote",
            fields=[
                ("entry_id", models.BigIntegerField(primary_key=True, serialize=False)),
            ],
        ),
        migrations.CreateModel(
            name="AuditVerified",
            fields=[
                ("chain", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ("seq", models.BigIntegerField(default=0)),
                ("at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("problem", models.JSONField(null=True)),
                ("walked", models.BigIntegerField(default=0)),
                ("walked_hash", models.BinaryField(default=bytes)),
            ],
        ),
        migrations.CreateModel(
            name="AuditCheckpoint",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("chain", models.UUIDField()),
                ("seq", models.BigIntegerField()),
                ("hash", models.BinaryField()),
                ("at", models.DateTimeField()),
                ("key", models.CharField(max_length=16)),
                ("signature", models.BinaryField()),
            ],
            options={
                "constraints": [models.UniqueConstraint(fields=("chain", "seq"), name="one_checkpoint_per_number")],
            },
        ),
        migrations.CreateModel(
            name="AuditLink",
            fields=[
                (
                    "entry",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT,
                        primary_key=True,
                        related_name="link",
                        serialize=False,
                        to="tenants.auditentry",
                    ),
                ),
                ("chain", models.UUIDField()),
                ("seq", models.BigIntegerField()),
                ("prev", models.BinaryField()),
                ("hash", models.BinaryField()),
            ],
            options={
                "constraints": [models.UniqueConstraint(fields=("chain", "seq"), name="one_entry_per_number")],
            },
        ),
        migrations.AddIndex(model_name="auditentry", index=models.Index(fields=["tenant", "-at", "-id"], name="audit_by_time")),
        migrations.RunSQL(LINE + LINK + TRIGGERS, UNDO),
        migrations.RunSQL(append_only("tenants_auditlink"), migrations.RunSQL.noop),
        migrations.RunSQL(append_only("tenants_auditcheckpoint"), migrations.RunSQL.noop),
        migrations.RunSQL(EXISTING, migrations.RunSQL.noop),
    ]

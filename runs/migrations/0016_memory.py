import django.contrib.postgres.fields
import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models

import tenants.ids


class Migration(migrations.Migration):
    dependencies = [
        ("runs", "0015_rollout"),
        ("tenants", "0001_initial"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="MemoryItem",
            fields=[
                ("id", models.UUIDField(default=tenants.ids.new_id, editable=False, primary_key=True, serialize=False)),
                ("kind", models.CharField(choices=[("session", "Session"), ("reference", "Reference")], max_length=12)),
                ("agent", models.CharField(max_length=64)),
                ("session", models.CharField(blank=True, default="", max_length=128)),
                ("subject", models.CharField(blank=True, default="", max_length=200)),
                ("key", models.CharField(max_length=128)),
                ("value", models.JSONField(null=True)),
                ("sealed", models.BinaryField(null=True)),
                (
                    "sensitivity",
                    models.CharField(choices=[("normal", "Normal"), ("sensitive", "Sensitive")], default="normal", max_length=12),
                ),
                (
                    "labels",
                    django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=40), default=list, size=None),
                ),
                ("owner", models.CharField(max_length=200)),
                ("run_id", models.UUIDField()),
                ("step", models.IntegerField()),
                ("ord", models.IntegerField()),
                ("expires_at", models.DateTimeField()),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("updated_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "corrected_by",
                    models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, to=settings.AUTH_USER_MODEL),
                ),
                ("tenant", models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, to="tenants.tenant")),
            ],
            options={
                "indexes": [
                    models.Index(fields=["tenant", "-id"], name="memory_by_tenant"),
                    models.Index(fields=["expires_at"], name="memory_expiry"),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("tenant", "kind", "agent", "session", "subject", "key"), name="one_memory_per_key"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("sealed__isnull", True), ("sensitivity", "normal")),
                            models.Q(("sensitivity", "sensitive"), ("value__isnull", True)),
                            _connector="OR",
                        ),
                        name="sensitive_memory_is_sealed",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="MemoryUse",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("run_id", models.UUIDField()),
                ("step", models.IntegerField()),
                ("ord", models.IntegerField()),
                ("item_id", models.UUIDField()),
                ("did", models.CharField(choices=[("read", "Read"), ("wrote", "Wrote"), ("forgot", "Forgot")], max_length=8)),
                ("gone", models.BooleanField(db_default=False)),
                ("at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("tenant", models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, to="tenants.tenant")),
            ],
            options={
                "indexes": [
                    models.Index(fields=["item_id"], name="memory_use_of_item"),
                    models.Index(condition=models.Q(("gone", True)), fields=["id"], name="memory_use_gone"),
                ],
                "constraints": [
                    models.UniqueConstraint(fields=("run_id", "step", "ord", "item_id"), name="one_memory_use_per_call")
                ],
            },
        ),
    ]

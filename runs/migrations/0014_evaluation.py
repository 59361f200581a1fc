import django.contrib.postgres.fields
import django.db.models.deletion
import django.db.models.functions.datetime
import tenants.ids
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("runs", "0013_rehearsal"),
        ("tenants", "0001_initial"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Suite",
            fields=[
                ("id", models.UUIDField(default=tenants.ids.new_id, editable=False, primary_key=True, serialize=False)),
                ("name", models.CharField(max_length=64, unique=True)),
                ("description", models.TextField(blank=True, default="")),
                (
                    "tenants",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=63), blank=True, default=list, size=None
                    ),
                ),
                ("revision", models.PositiveIntegerField(default=0)),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("updated_at", models.DateTimeField(auto_now=True)),
            ],
        ),
        migrations.CreateModel(
            name="Case",
            fields=[
                ("id", models.UUIDField(default=tenants.ids.new_id, editable=False, primary_key=True, serialize=False)),
                ("key", models.CharField(max_length=100)),
                ("version", models.PositiveIntegerField(default=1)),
                ("since", models.PositiveIntegerField()),
                ("until", models.PositiveIntegerField(null=True)),
                ("spec", models.JSONField()),
                ("sha256", models.CharField(max_length=64)),
                ("run_id", models.UUIDField(null=True)),
                ("added_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("added_by", models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, to=settings.AUTH_USER_MODEL)),
                ("tenant", models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, to="tenants.tenant")),
                (
                    "suite",
                    models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name="cases", to="runs.suite"),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Evaluation",
            fields=[
                ("id", models.UUIDField(default=tenants.ids.new_id, editable=False, primary_key=True, serialize=False)),
                ("revision", models.PositiveIntegerField()),
                ("suite_sha256", models.CharField(max_length=64)),
                ("repetitions", models.PositiveSmallIntegerField(default=1)),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("queued", "Queued"),
                            ("running", "Running"),
                            ("done", "Done"),
                            ("cancelled", "Cancelled"),
                            ("failed", "Failed"),
                        ],
                        default="queued",
                        max_length=10,
                    ),
                ),
                ("ceiling_micro", models.BigIntegerField()),
                ("done", models.PositiveIntegerField(default=0)),
                ("total", models.PositiveIntegerField()),
                ("result", models.JSONField(null=True)),
                ("at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("ended_at", models.DateTimeField(null=True)),
                ("release", models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, to="runs.release")),
                ("started_by", models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, to=settings.AUTH_USER_MODEL)),
                ("tenant", models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, to="tenants.tenant")),
                ("suite", models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, to="runs.suite")),
            ],
        ),
        migrations.CreateModel(
            name="Score",
            fields=[
                ("id", models.UUIDField(default=tenants.ids.new_id, editable=False, primary_key=True, serialize=False)),
                ("run_id", models.UUIDField()),
                ("repetition", models.PositiveSmallIntegerField(default=1)),
                ("checks_version", models.PositiveSmallIntegerField()),
                ("measures", models.JSONField(null=True)),
                ("failing", django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=40), default=list, size=None)),
                ("at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("case", models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, to="runs.case")),
                (
                    "evaluation",
                    models.ForeignKey(
                        db_index=False, null=True, on_delete=django.db.models.deletion.CASCADE, related_name="scores", to="runs.evaluation"
                    ),
                ),
                ("tenant", models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, to="tenants.tenant")),
            ],
            options={
                "indexes": [
                    models.Index(condition=models.Q(("evaluation__isnull", True)), fields=["tenant", "-id"], name="score_of_production"),
                    models.Index(fields=["evaluation", "id"], name="score_of_evaluation"),
                ],
                "constraints": [
                    models.UniqueConstraint(fields=("run_id", "checks_version"), name="one_score_per_version"),
                    models.UniqueConstraint(fields=("evaluation", "repetition", "case"), name="one_run_per_case"),
                ],
            },
        ),
        migrations.AddIndex(
            model_name="evaluation",
            index=models.Index(fields=["release", "-id"], name="evaluation_of_release"),
        ),
        migrations.AddIndex(
            model_name="evaluation",
            index=models.Index(condition=models.Q(("state__in", ["queued", "running"])), fields=["id"], name="evaluation_open"),
        ),
        migrations.AddIndex(
            model_name="case",
            index=models.Index(fields=["suite", "id"], name="case_of_suite"),
        ),
        migrations.AddConstraint(
            model_name="case",
            constraint=models.UniqueConstraint(
                condition=models.Q(("until__isnull", True)), fields=("suite", "key"), name="one_case_per_key"
            ),
        ),
        migrations.AddConstraint(
            model_name="case",
            constraint=models.UniqueConstraint(fields=("suite", "key", "version"), name="one_case_per_version"),
        ),
    ]

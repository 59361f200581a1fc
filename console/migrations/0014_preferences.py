import django.contrib.postgres.fields
import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("console", "0013_bulk")]

    operations = [
        migrations.CreateModel(
            name="Preference",
            fields=[
                (
                    "user",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="preference",
                        serialize=False,
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                ("own_zone", models.CharField(default="local", max_length=64)),
                ("in_utc", models.BooleanField(default=True)),
                (
                    "clock",
                    models.CharField(
                        choices=[("24", "24 hours: 17:05"), ("12", "12 hours: 05:05 pm")],
                        default="24",
                        max_length=2,
                    ),
                ),
                (
                    "times",
                    models.CharField(
                        choices=[("relative", "How long ago, within a day"), ("absolute", "Always the time")],
                        default="relative",
                        max_length=8,
                    ),
                ),
                (
                    "density",
                    models.CharField(
                        choices=[("comfortable", "Comfortable"), ("compact", "Compact: more rows on a screen")],
                        default="comfortable",
                        max_length=11,
                    ),
                ),
                (
                    "theme",
                    models.CharField(
                        choices=[("auto", "As the system has it"), ("light", "Light"), ("dark", "Dark")],
                        default="auto",
                        max_length=5,
                    ),
                ),
                ("single_keys", models.BooleanField(default=True)),
                ("title_count", models.BooleanField(default=False)),
                ("desktop_notices", models.BooleanField(default=False)),
            ],
        ),
        migrations.CreateModel(
            name="KeyAllowlist",
            fields=[
                (
                    "key",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="allowlist",
                        serialize=False,
                        to="tenants.apikey",
                    ),
                ),
                (
                    "networks",
                    django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=43), size=None),
                ),
            ],
        ),
    ]

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("tenants", "0004_audit_chain")]

    operations = [
        migrations.CreateModel(
            name="RateBucket",
            fields=[
                ("name", models.CharField(max_length=120, primary_key=True, serialize=False)),
                ("tokens", models.FloatField()),
                ("given", models.FloatField()),
                ("at", models.DateTimeField()),
            ],
        ),
        migrations.RunSQL(
            "alter table tenants_ratebucket set unlogged, set (fillfactor = 50)", "alter table tenants_ratebucket set logged"
        ),
    ]

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("runs", "0016_memory"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="run",
            index=models.Index(condition=models.Q(("mode", "normal"), _negated=True), fields=["id"], name="run_rehearsals"),
        ),
    ]

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("tools", "0007_permission_group")]
    operations = [
        migrations.AddField("toolversion", "preview", models.JSONField(null=True)),
        migrations.AddField("toolversion", "compensate", models.JSONField(null=True)),
    ]

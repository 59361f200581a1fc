from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("tools", "0006_rules")]
    operations = [
        migrations.AddField("permission", "group", models.CharField(blank=True, default="", max_length=64)),
        migrations.AddConstraint(
            "permission",
            models.CheckConstraint(
                condition=models.Q(("group", ""), models.Q(("decision", "ask"), ("tenant__isnull", False)), _connector="OR"),
                name="group_decides_for_its_tenant",
            ),
        ),
    ]

from django.db import migrations

from tenants.protect import FUNCTION, append_only


class Migration(migrations.Migration):
    dependencies = [("tenants", "0001_initial")]
    operations = [
        migrations.RunSQL(FUNCTION, "drop function refuse_change()"),
        migrations.RunSQL(append_only("tenants_auditentry"), migrations.RunSQL.noop),
    ]

from django.db import migrations

from tenants.protect import append_only


class Migration(migrations.Migration):
    dependencies = [("tools", "0001_initial"), ("tenants", "0002_protect")]
    operations = [migrations.RunSQL(append_only("tools_toolversion"), migrations.RunSQL.noop)]

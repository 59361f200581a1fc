from django.db import migrations

from tenants.protect import append_only


class Migration(migrations.Migration):
    dependencies = [("approvals", "0002_initial"), ("tenants", "0002_protect")]
    operations = [migrations.RunSQL(append_only("approvals_approvaldecision"), migrations.RunSQL.noop)]

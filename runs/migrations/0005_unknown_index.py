from django.db import migrations

from tenants.protect import append_only


class Migration(migrations.Migration):
    dependencies = [("runs", "0004_unknown_writes"), ("tenants", "0002_protect")]
    operations = [
        migrations.RunSQL(append_only("runs_observation"), migrations.RunSQL.noop),
        # the sweep looks for unknown calls each second: only they are in this index
        migrations.RunSQL("create index call_unknown on call(run_id) where state = 'unknown'", "drop index call_unknown"),
    ]

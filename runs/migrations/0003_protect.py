from django.db import migrations

from runs.states import CALL, RUN, trigger_sql
from tenants.protect import append_only


class Migration(migrations.Migration):
    dependencies = [("runs", "0002_live_release"), ("tenants", "0002_protect")]
    operations = [
        migrations.RunSQL(append_only("runs_release"), migrations.RunSQL.noop),
        migrations.RunSQL(append_only("event"), migrations.RunSQL.noop),
        migrations.RunSQL(trigger_sql("run", RUN), migrations.RunSQL.noop),
        migrations.RunSQL(trigger_sql("call", CALL), migrations.RunSQL.noop),
        # room on each page, so that the many updates of one row stay on it (HOT)
        migrations.RunSQL("alter table run set (fillfactor = 70); alter table call set (fillfactor = 70)", migrations.RunSQL.noop),
    ]

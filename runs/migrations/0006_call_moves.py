from django.db import migrations

from runs.states import CALL, trigger_sql


class Migration(migrations.Migration):
    dependencies = [("runs", "0005_unknown_index")]
    operations = [migrations.RunSQL(trigger_sql("call", CALL), migrations.RunSQL.noop)]

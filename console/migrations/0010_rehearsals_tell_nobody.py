from django.db import migrations

# Runs that change nothing are nobody's news.
TELLS = """
drop trigger if exists run_tells_channels on run;
create trigger run_tells_channels after update of state on run for each row
  when (old.state is distinct from new.state and new.mode not in ('shadow', 'eval', 'fork') and new.state in ('succeeded', 'failed',
    'cancelled', 'waiting_approval', 'waiting_budget', 'needs_reconciliation', 'paused', 'quarantined'))
  execute function run_tells_channels();
"""


class Migration(migrations.Migration):
    dependencies = [("console", "0009_telemetry"), ("runs", "0013_rehearsal")]
    operations = [migrations.RunSQL(TELLS, migrations.RunSQL.noop)]

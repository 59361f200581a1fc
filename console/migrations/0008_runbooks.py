from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("console", "0007_incidents")]
    operations = []

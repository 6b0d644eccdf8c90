"""The message queue's schema (`pgmq`), which makes the database its own Celery broker.

Plain SQL that the `pgmq` package carries, so no server extension is needed and any PostgreSQL will do. It is
installed also where another broker is configured: a later change of the broker then needs no migration.
"""

from django.db import migrations
from pgmq.install import get_embedded_install_sql


def install(apps, schema_editor):
    with schema_editor.connection.cursor() as cursor:
        # The script is a snapshot that cannot run twice; a server may also bring pgmq as an extension.
        cursor.execute("SELECT to_regclass('pgmq.meta') IS NOT NULL")
        if cursor.fetchone()[0]:
            return
        cursor.execute(get_embedded_install_sql())


def uninstall(apps, schema_editor):
    with schema_editor.connection.cursor() as cursor:
        cursor.execute("DROP SCHEMA IF EXISTS pgmq CASCADE")


class Migration(migrations.Migration):
    dependencies = []
    operations = [migrations.RunPython(install, uninstall)]

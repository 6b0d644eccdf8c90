"""The beat table an installation starts with. Operators edit it in the admin; nothing here overwrites their edits."""

from django.db import migrations


def schedule(apps, schema_editor):
    IntervalSchedule = apps.get_model("django_celery_beat", "IntervalSchedule")
    PeriodicTask = apps.get_model("django_celery_beat", "PeriodicTask")
    minute, _ = IntervalSchedule.objects.get_or_create(every=1, period="minutes")
    seconds, _ = IntervalSchedule.objects.get_or_create(every=5, period="seconds")
    day, _ = IntervalSchedule.objects.get_or_create(every=1, period="days")
    hours, _ = IntervalSchedule.objects.get_or_create(every=6, period="hours")
    for name, task, interval, description in [
        (
            "Close due billing periods",
            "billing.tasks.close_due_cycles",
            minute,
            "Opens the next period of subscriptions, closes periods whose lateness window is over, issues invoices.",
        ),
        (
            "Roll up usage",
            "meters.tasks.roll_up",
            seconds,
            "Adds new events to the hourly buckets. Usage is exact without it, and slower to read.",
        ),
        (
            "Compare buckets with the event log",
            "meters.tasks.reconcile",
            day,
            "Counts a sample of the usage again from the log; the start page shows what came of it.",
        ),
        (
            "Make partitions of the event log",
            "meters.tasks.make_partitions",
            hours,
            "Makes the event log's next months ahead of time.",
        ),
        (
            "Go on with event imports",
            "meters.tasks.resume_imports",
            minute,
            "Takes up uploaded files of events whose worker was stopped.",
        ),
        (
            "Archive old events",
            "meters.tasks.archive_old_events",
            day,
            "Writes months older than EVENT_RETENTION_MONTHS to files and drops them. Does nothing while that is 0.",
        ),
    ]:
        PeriodicTask.objects.get_or_create(
            name=name, defaults={"task": task, "interval": interval, "description": description}
        )


class Migration(migrations.Migration):
    dependencies = [("config", "0001_pgmq"), ("django_celery_beat", "0019_alter_periodictasks_options")]
    operations = [migrations.RunPython(schedule, migrations.RunPython.noop)]

"""Prepaid credit expires by itself: one more row of the beat table. Operators edit it like the others."""

from django.db import migrations


def schedule(apps, schema_editor):
    IntervalSchedule = apps.get_model("django_celery_beat", "IntervalSchedule")
    PeriodicTask = apps.get_model("django_celery_beat", "PeriodicTask")
    minute, _ = IntervalSchedule.objects.get_or_create(every=1, period="minutes")
    PeriodicTask.objects.get_or_create(
        name="Expire prepaid credit",
        defaults={
            "task": "billing.tasks.expire_credit",
            "interval": minute,
            "description": "Takes what is left of prepaid credit whose end has come. It is not drawn after its end anyway.",
        },
    )


class Migration(migrations.Migration):
    dependencies = [("config", "0002_schedule")]
    operations = [migrations.RunPython(schedule, migrations.RunPython.noop)]

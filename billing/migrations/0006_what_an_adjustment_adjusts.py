"""What an adjustment adjusts; and a series that was there before it knew its prefix gets the one it has always had."""

from typing import Any

from django.conf import settings
from django.db import migrations, models


def name_the_prefix(apps: Any, schema_editor: Any) -> None:
    series = apps.get_model("billing", "NumberSeries").objects.filter(name="invoices", prefix="")
    series.update(prefix=settings.INVOICE_NUMBER_PREFIX)


class Migration(migrations.Migration):
    dependencies = [("billing", "0005_frozen_documents")]
    operations = [
        migrations.AddField(
            model_name="invoiceline",
            name="adjusts",
            field=models.CharField(
                blank=True,
                choices=[
                    ("fee", "Fee, in advance"),
                    ("usage", "Usage, in arrears"),
                    ("adjustment", "Adjustment of an earlier period"),
                    ("one_time", "One-time"),
                    ("commitment", "Up to the commitment"),
                ],
                max_length=10,
            ),
        ),
        migrations.RunPython(name_the_prefix, migrations.RunPython.noop),
    ]

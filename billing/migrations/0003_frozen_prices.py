"""A price version and its charges never change: what a subscription was sold at stays what it is billed at."""

from django.db import migrations

CREATE = """
CREATE FUNCTION billing_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a price version never changes; make the next one' USING ERRCODE = 'check_violation';
END $$;
CREATE TRIGGER billing_price_frozen BEFORE UPDATE OR DELETE ON billing_price
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_change();
CREATE TRIGGER billing_charge_frozen BEFORE UPDATE OR DELETE ON billing_charge
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_change();
"""

DROP = """
DROP TRIGGER billing_charge_frozen ON billing_charge;
DROP TRIGGER billing_price_frozen ON billing_price;
DROP FUNCTION billing_refuse_change();
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0002_frozen_invoices")]
    operations = [migrations.RunSQL(CREATE, DROP)]

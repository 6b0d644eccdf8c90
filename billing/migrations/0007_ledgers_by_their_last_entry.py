"""Hold a ledger to its sum by its last entry, so that a movement costs the same however long the ledger is.

Each entry says what there is after it. If it is the entry before plus its own amount, and the row says what the last entry
says, then the row is the sum of all. Ids follow the order of the entries, because whoever writes one holds the row's lock.
"""

from django.db import migrations, models

CREATE = """
CREATE OR REPLACE FUNCTION billing_balance_is_its_ledger() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE held numeric; written numeric; before numeric; which bigint;
BEGIN
    which := CASE WHEN TG_TABLE_NAME = 'billing_balance' THEN (to_jsonb(NEW) ->> 'id')::bigint
                  ELSE (to_jsonb(NEW) ->> 'balance_id')::bigint END;
    SELECT amount INTO held FROM billing_balance WHERE id = which;
    SELECT "after" INTO written FROM billing_balanceentry WHERE balance_id = which ORDER BY id DESC LIMIT 1;
    IF held <> coalesce(written, 0) THEN
        RAISE EXCEPTION 'balance % holds % but its ledger ends with %', which, held, coalesce(written, 0)
            USING ERRCODE = 'check_violation';
    END IF;
    IF TG_TABLE_NAME = 'billing_balanceentry' THEN
        SELECT "after" INTO before FROM billing_balanceentry
            WHERE balance_id = which AND id < NEW.id ORDER BY id DESC LIMIT 1;
        IF NEW."after" <> coalesce(before, 0) + NEW.amount THEN
            RAISE EXCEPTION 'an entry of balance % says % after % and %', which, NEW."after", coalesce(before, 0), NEW.amount
                USING ERRCODE = 'check_violation';
        END IF;
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION billing_grant_is_its_ledger() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE held numeric; written numeric; before numeric; which bigint;
BEGIN
    which := CASE WHEN TG_TABLE_NAME = 'billing_creditgrant' THEN (to_jsonb(NEW) ->> 'id')::bigint
                  ELSE (to_jsonb(NEW) ->> 'grant_id')::bigint END;
    SELECT remaining INTO held FROM billing_creditgrant WHERE id = which;
    SELECT "after" INTO written FROM billing_grantentry WHERE grant_id = which ORDER BY id DESC LIMIT 1;
    IF held <> coalesce(written, 0) THEN
        RAISE EXCEPTION 'grant % has % left but its ledger ends with %', which, held, coalesce(written, 0)
            USING ERRCODE = 'check_violation';
    END IF;
    IF TG_TABLE_NAME = 'billing_grantentry' THEN
        SELECT "after" INTO before FROM billing_grantentry
            WHERE grant_id = which AND id < NEW.id ORDER BY id DESC LIMIT 1;
        IF NEW."after" <> coalesce(before, 0) + NEW.amount THEN
            RAISE EXCEPTION 'an entry of grant % says % after % and %', which, NEW."after", coalesce(before, 0), NEW.amount
                USING ERRCODE = 'check_violation';
        END IF;
    END IF;
    RETURN NULL;
END $$;
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0006_what_an_adjustment_adjusts")]
    operations = [
        migrations.AddIndex(
            model_name="balanceentry",
            index=models.Index(fields=["balance", "-id"], name="balance_entry_last"),
        ),
        migrations.AddIndex(
            model_name="grantentry",
            index=models.Index(fields=["grant", "-id"], name="grant_entry_last"),
        ),
        migrations.RunSQL(CREATE, migrations.RunSQL.noop),
    ]

"""What the database refuses further: a credit note that is not its lines, a closed period that opens again.

And an index for the question every closing asks: what was billed for this period so far?
"""

from django.db import migrations, models

CREATE = """
-- A note and its lines are written together; a line that comes later no longer fits the sums.
CREATE FUNCTION billing_note_is_its_lines() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE note record; written record; which bigint;
BEGIN
    which := CASE WHEN TG_TABLE_NAME = 'billing_creditnote' THEN (to_jsonb(NEW) ->> 'id')::bigint
                  ELSE (to_jsonb(NEW) ->> 'credit_note_id')::bigint END;
    SELECT number, subtotal, credit, tax, total INTO note FROM billing_creditnote WHERE id = which;
    SELECT coalesce(sum(amount), 0) AS subtotal, coalesce(sum(credit), 0) AS credit, coalesce(sum(tax), 0) AS tax,
           coalesce(sum(total), 0) AS total
        INTO written FROM billing_creditnoteline WHERE credit_note_id = which;
    IF (note.subtotal, note.credit, note.tax, note.total)
        IS DISTINCT FROM (written.subtotal, written.credit, written.tax, written.total) THEN
        RAISE EXCEPTION 'credit note % totals % but its lines add up to %', note.number, note.total, written.total
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER billing_creditnote_adds_up AFTER INSERT ON billing_creditnote
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION billing_note_is_its_lines();
CREATE CONSTRAINT TRIGGER billing_creditnoteline_adds_up AFTER INSERT ON billing_creditnoteline
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION billing_note_is_its_lines();

CREATE FUNCTION billing_closed_stays_closed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the period from % was closed and stays closed', OLD.start USING ERRCODE = 'check_violation';
END $$;
CREATE TRIGGER billing_period_stays_closed BEFORE UPDATE ON billing_billingperiod FOR EACH ROW
    WHEN (OLD.closed_at IS NOT NULL AND NEW.closed_at IS DISTINCT FROM OLD.closed_at)
    EXECUTE FUNCTION billing_closed_stays_closed();

CREATE TRIGGER billing_ignoredcorrection_frozen BEFORE UPDATE ON billing_ignoredcorrection
    FOR EACH ROW EXECUTE FUNCTION billing_only_grows('the record of ignored corrections');
"""

DROP = """
DROP TRIGGER billing_ignoredcorrection_frozen ON billing_ignoredcorrection;
DROP TRIGGER billing_period_stays_closed ON billing_billingperiod;
DROP FUNCTION billing_closed_stays_closed();
DROP TRIGGER billing_creditnoteline_adds_up ON billing_creditnoteline;
DROP TRIGGER billing_creditnote_adds_up ON billing_creditnote;
DROP FUNCTION billing_note_is_its_lines();
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0007_ledgers_by_their_last_entry")]
    operations = [
        migrations.AddIndex(
            model_name="invoiceline",
            index=models.Index(fields=["subscription", "period_start"], name="line_of_period"),
        ),
        migrations.RunSQL(CREATE, DROP),
    ]

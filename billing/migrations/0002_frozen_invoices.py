"""An issued invoice never changes: the database refuses it, whoever asks.

Issuing checks that the total is the sum of the printed lines. Afterwards only payment and voiding may touch the row,
and a line may only lose `live`, when its invoice is void.
"""

from django.db import migrations

CREATE = """
CREATE FUNCTION billing_guard_invoice() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE printed numeric;
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF OLD.status <> 'draft' THEN
            RAISE EXCEPTION 'invoice % is issued and cannot be deleted', OLD.number USING ERRCODE = 'check_violation';
        END IF;
        RETURN OLD;
    END IF;
    IF OLD.status = 'draft' THEN
        IF NEW.status <> 'draft' THEN
            SELECT coalesce(sum(amount), 0) INTO printed FROM billing_invoiceline WHERE invoice_id = NEW.id;
            IF NEW.subtotal <> printed OR NEW.total <> NEW.subtotal + NEW.tax THEN
                RAISE EXCEPTION 'invoice % totals % but its lines add up to %', NEW.public_id, NEW.total, printed
                    USING ERRCODE = 'check_violation';
            END IF;
        END IF;
        RETURN NEW;
    END IF;
    IF (to_jsonb(NEW) - ARRAY['status', 'paid_at', 'voided_at', 'void_reason'])
        IS DISTINCT FROM (to_jsonb(OLD) - ARRAY['status', 'paid_at', 'voided_at', 'void_reason']) THEN
        RAISE EXCEPTION 'invoice % is issued and cannot be changed', OLD.number USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.status <> OLD.status AND NOT (OLD.status, NEW.status) IN (('issued', 'paid'), ('issued', 'void'), ('paid', 'void')) THEN
        RAISE EXCEPTION 'invoice % cannot go from % to %', OLD.number, OLD.status, NEW.status
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER billing_invoice_frozen BEFORE UPDATE OR DELETE ON billing_invoice
    FOR EACH ROW EXECUTE FUNCTION billing_guard_invoice();

CREATE FUNCTION billing_guard_line() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE owner record;
BEGIN
    SELECT status, number INTO owner FROM billing_invoice WHERE id = coalesce(NEW.invoice_id, OLD.invoice_id);
    IF owner.status = 'draft' THEN
        RETURN coalesce(NEW, OLD);
    END IF;
    IF TG_OP = 'UPDATE' AND owner.status = 'void' AND NOT NEW.live
        AND (to_jsonb(NEW) - 'live') IS NOT DISTINCT FROM (to_jsonb(OLD) - 'live') THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'invoice % is issued and its lines cannot be changed', owner.number
        USING ERRCODE = 'check_violation';
END $$;
CREATE TRIGGER billing_line_frozen BEFORE INSERT OR UPDATE OR DELETE ON billing_invoiceline
    FOR EACH ROW EXECUTE FUNCTION billing_guard_line();
"""

DROP = """
DROP TRIGGER billing_line_frozen ON billing_invoiceline;
DROP FUNCTION billing_guard_line();
DROP TRIGGER billing_invoice_frozen ON billing_invoice;
DROP FUNCTION billing_guard_invoice();
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0001_initial")]
    operations = [migrations.RunSQL(CREATE, DROP)]

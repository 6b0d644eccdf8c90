"""An issued invoice never changes: the database refuses it, whoever asks.

Issuing checks that the total is the sum of the printed lines. Afterwards only payment and voiding may touch the row,
and a line may only lose `live`, when its invoice is void.
"""

from django.db import migrations

CREATE = """
CREATE FUNCTION billing_guard_invoice() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE printed numeric; allowed text[];
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF OLD.status <> 'draft' THEN
            RAISE EXCEPTION 'invoice % is issued and cannot be deleted', OLD.number USING ERRCODE = 'check_violation';
        END IF;
        RETURN OLD;
    END IF;
    IF TG_OP = 'INSERT' THEN
        IF NEW.status <> 'draft' THEN
            RAISE EXCEPTION 'an invoice begins as a draft' USING ERRCODE = 'check_violation';
        END IF;
        RETURN NEW;
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
    -- What may change is what the step itself says: when it was paid, or when and why it was voided.
    IF NEW.status = OLD.status THEN
        allowed := ARRAY[]::text[];
    ELSIF (OLD.status, NEW.status) = ('issued', 'paid') THEN
        allowed := ARRAY['status', 'paid_at'];
    ELSIF NEW.status = 'void' THEN
        allowed := ARRAY['status', 'voided_at', 'void_reason'];
    ELSE
        RAISE EXCEPTION 'invoice % cannot go from % to %', OLD.number, OLD.status, NEW.status
            USING ERRCODE = 'check_violation';
    END IF;
    IF (to_jsonb(NEW) - allowed) IS DISTINCT FROM (to_jsonb(OLD) - allowed) THEN
        RAISE EXCEPTION 'invoice % is issued and cannot be changed', OLD.number USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER billing_invoice_frozen BEFORE INSERT OR UPDATE OR DELETE ON billing_invoice
    FOR EACH ROW EXECUTE FUNCTION billing_guard_invoice();

CREATE FUNCTION billing_guard_line() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE owner record;
BEGIN
    -- Both ends of a line that moves from one invoice to another.
    FOR owner IN SELECT status, number FROM billing_invoice
        WHERE id IN (CASE WHEN TG_OP <> 'DELETE' THEN NEW.invoice_id END, CASE WHEN TG_OP <> 'INSERT' THEN OLD.invoice_id END)
    LOOP
        IF owner.status = 'draft' THEN
            CONTINUE;
        END IF;
        IF TG_OP = 'UPDATE' AND owner.status = 'void' THEN
            IF NOT NEW.live AND (to_jsonb(NEW) - 'live') IS NOT DISTINCT FROM (to_jsonb(OLD) - 'live') THEN
                CONTINUE;
            END IF;
        END IF;
        RAISE EXCEPTION 'invoice % is issued and its lines cannot be changed', owner.number
            USING ERRCODE = 'check_violation';
    END LOOP;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    RETURN NEW;
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

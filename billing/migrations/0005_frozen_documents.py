"""What the database refuses, whoever asks: edits of issued invoices, of credit notes, and of both ledgers.

An invoice goes draft -> issued -> paid, void or uncollectible; an uncollectible one may still be paid. Issuing checks
that its sums are those of its printed lines.
"""

from django.db import migrations

CREATE = """
CREATE OR REPLACE FUNCTION billing_guard_invoice() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE printed record; allowed text[];
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
            SELECT coalesce(sum(amount), 0) AS subtotal, coalesce(sum(credit), 0) AS credit,
                   coalesce(sum(tax), 0) AS tax, coalesce(sum(total), 0) AS total
                INTO printed FROM billing_invoiceline WHERE invoice_id = NEW.id;
            IF (NEW.subtotal, NEW.credit, NEW.tax, NEW.total)
                IS DISTINCT FROM (printed.subtotal, printed.credit, printed.tax, printed.total) THEN
                RAISE EXCEPTION 'invoice % totals % but its lines add up to %', NEW.public_id, NEW.total, printed.total
                    USING ERRCODE = 'check_violation';
            END IF;
        END IF;
        RETURN NEW;
    END IF;
    -- What may change is what the step itself says: when it was paid, or when and why it was given up.
    IF NEW.status = OLD.status THEN
        allowed := ARRAY[]::text[];
    ELSIF (OLD.status, NEW.status) IN (('issued', 'paid'), ('uncollectible', 'paid')) THEN
        allowed := ARRAY['status', 'paid_at'];
    ELSIF NEW.status = 'void' AND OLD.status <> 'void' THEN
        allowed := ARRAY['status', 'voided_at', 'void_reason'];
    ELSIF (OLD.status, NEW.status) = ('issued', 'uncollectible') THEN
        allowed := ARRAY['status', 'uncollectible_at', 'uncollectible_reason'];
    ELSE
        RAISE EXCEPTION 'invoice % cannot go from % to %', OLD.number, OLD.status, NEW.status
            USING ERRCODE = 'check_violation';
    END IF;
    -- A generated column has no value yet in a BEFORE trigger; it follows from the others.
    IF (to_jsonb(NEW) - allowed - 'due') IS DISTINCT FROM (to_jsonb(OLD) - allowed - 'due') THEN
        RAISE EXCEPTION 'invoice % is issued and cannot be changed', OLD.number USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE OR REPLACE FUNCTION billing_guard_line() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE owner record; freed text[] := ARRAY['live', 'counts', 'total'];
BEGIN
    -- Both ends of a line that moves from one invoice to another.
    FOR owner IN SELECT status, number FROM billing_invoice
        WHERE id IN (CASE WHEN TG_OP <> 'DELETE' THEN NEW.invoice_id END, CASE WHEN TG_OP <> 'INSERT' THEN OLD.invoice_id END)
    LOOP
        IF owner.status = 'draft' THEN
            CONTINUE;
        END IF;
        IF TG_OP = 'UPDATE' AND owner.status = 'void' THEN
            IF NOT NEW.live AND (OLD.counts OR NOT NEW.counts)
                AND (to_jsonb(NEW) - freed) IS NOT DISTINCT FROM (to_jsonb(OLD) - freed) THEN
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

CREATE FUNCTION billing_only_grows() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% only grows: correct it by a new entry', TG_ARGV[0] USING ERRCODE = 'check_violation';
END $$;
CREATE TRIGGER billing_balanceentry_frozen BEFORE UPDATE OR DELETE ON billing_balanceentry
    FOR EACH ROW EXECUTE FUNCTION billing_only_grows('the ledger of balances');
CREATE TRIGGER billing_grantentry_frozen BEFORE UPDATE OR DELETE ON billing_grantentry
    FOR EACH ROW EXECUTE FUNCTION billing_only_grows('the ledger of credit');
CREATE TRIGGER billing_creditnote_frozen BEFORE UPDATE OR DELETE ON billing_creditnote
    FOR EACH ROW EXECUTE FUNCTION billing_only_grows('a credit note');
CREATE TRIGGER billing_creditnoteline_frozen BEFORE UPDATE OR DELETE ON billing_creditnoteline
    FOR EACH ROW EXECUTE FUNCTION billing_only_grows('a credit note');

-- Each ledger's entries add up to what it says is there, when the transaction ends.
CREATE FUNCTION billing_balance_is_its_ledger() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE held numeric; written numeric; which bigint;
BEGIN
    which := CASE WHEN TG_TABLE_NAME = 'billing_balance' THEN (to_jsonb(NEW) ->> 'id')::bigint
                  ELSE (to_jsonb(NEW) ->> 'balance_id')::bigint END;
    SELECT amount INTO held FROM billing_balance WHERE id = which;
    SELECT coalesce(sum(amount), 0) INTO written FROM billing_balanceentry WHERE balance_id = which;
    IF held <> written THEN
        RAISE EXCEPTION 'balance % holds % but its ledger adds up to %', which, held, written
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER billing_balance_conserved AFTER INSERT OR UPDATE ON billing_balance
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION billing_balance_is_its_ledger();
CREATE CONSTRAINT TRIGGER billing_balanceentry_conserved AFTER INSERT ON billing_balanceentry
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION billing_balance_is_its_ledger();

CREATE FUNCTION billing_grant_is_its_ledger() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE held numeric; written numeric; which bigint;
BEGIN
    which := CASE WHEN TG_TABLE_NAME = 'billing_creditgrant' THEN (to_jsonb(NEW) ->> 'id')::bigint
                  ELSE (to_jsonb(NEW) ->> 'grant_id')::bigint END;
    SELECT remaining INTO held FROM billing_creditgrant WHERE id = which;
    SELECT coalesce(sum(amount), 0) INTO written FROM billing_grantentry WHERE grant_id = which;
    IF held <> written THEN
        RAISE EXCEPTION 'grant % has % left but its ledger adds up to %', which, held, written
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER billing_creditgrant_conserved AFTER INSERT OR UPDATE ON billing_creditgrant
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION billing_grant_is_its_ledger();
CREATE CONSTRAINT TRIGGER billing_grantentry_conserved AFTER INSERT ON billing_grantentry
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION billing_grant_is_its_ledger();
"""

DROP = """
DROP TRIGGER billing_grantentry_conserved ON billing_grantentry;
DROP TRIGGER billing_creditgrant_conserved ON billing_creditgrant;
DROP FUNCTION billing_grant_is_its_ledger();
DROP TRIGGER billing_balanceentry_conserved ON billing_balanceentry;
DROP TRIGGER billing_balance_conserved ON billing_balance;
DROP FUNCTION billing_balance_is_its_ledger();
DROP TRIGGER billing_creditnoteline_frozen ON billing_creditnoteline;
DROP TRIGGER billing_creditnote_frozen ON billing_creditnote;
DROP TRIGGER billing_grantentry_frozen ON billing_grantentry;
DROP TRIGGER billing_balanceentry_frozen ON billing_balanceentry;
DROP FUNCTION billing_only_grows();
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0004_pricing_and_documents")]
    operations = [migrations.RunSQL(CREATE, DROP)]

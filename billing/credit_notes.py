"""Credit notes: what an issued invoice gives back, whole, by line or by amount.

What is credited is measured by its worth: with its tax, before prepaid credit (`billing.crediting`). Each note splits
it into the line's amount, the prepaid credit that goes back to its grants, and the tax. The rest of it is money: first
it takes off what an open or uncollectible invoice still asks for, then it goes onto the customer's balance.

Lines below zero are not credited; they have taken their part off the others, so an invoice gives back its own sum at
most. An invoice with credit notes cannot be made void: what is left of it is credited instead.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Case, F, Sum, When

from billing.balances import move_balance
from billing.crediting import Printed, by_rate, creditable, part_of
from billing.credits import give_back, lock_holdings
from billing.models import (
    BalanceEntryKind,
    CreditNote,
    CreditNoteCause,
    CreditNoteLine,
    Invoice,
    InvoiceLine,
    InvoiceStatus,
    Payment,
    PaymentStatus,
)
from billing.models.invoices import OPEN
from billing.money import add, format_amount, plain, spread
from billing.numbers import CREDIT_NOTES, take_number
from customers.errors import Conflict

ZERO = Decimal(0)
# What may be credited: what a customer has been given, and has not been taken back whole.
CREDITABLE = (InvoiceStatus.ISSUED, InvoiceStatus.PAID, InvoiceStatus.UNCOLLECTIBLE)


class InvoiceNotCreditable(Conflict):
    code = "INVOICE_NOT_CREDITABLE"


@dataclass(frozen=True, slots=True)
class LineLeft:
    """A line of an invoice, what of it can be credited at all, and what was credited so far; worth in minor units."""

    line: InvoiceLine
    printed: Printed
    given: Decimal

    @property
    def left(self) -> Decimal:
        return add(self.printed.worth, -self.given)


@dataclass(frozen=True, slots=True)
class ProposedCredit:
    """A credit note that could be given: its lines, its sums, and where its money would go."""

    parts: tuple[tuple[LineLeft, Printed], ...]
    subtotal: Decimal
    credit: Decimal
    tax: Decimal
    total: Decimal
    to_invoice: Decimal
    to_balance: Decimal
    # What the invoice asks for afterwards.
    owed: Decimal


def owed(invoice: Invoice) -> Decimal:
    """What an open or uncollectible invoice still asks for: what was due, less its credit notes. Else nothing."""
    if invoice.status not in OPEN:
        return ZERO
    noted = invoice.credit_notes.aggregate(all=Sum("to_invoice"))["all"] or ZERO
    return max(add(invoice.due, -noted), ZERO)


def lines_left(invoice: Invoice) -> list[LineLeft]:
    """Every line that can be credited, as printed, with what is left of it."""
    lines = list(invoice.lines.order_by("position"))
    by_key = {line.pk: line for line in lines}
    worth = Case(When(tax_inclusive=True, then=F("amount")), default=F("amount") + F("tax"))
    given = dict(
        CreditNoteLine.objects.filter(invoice_line__invoice=invoice)
        .values_list("invoice_line")
        .annotate(worth=Sum(worth))
        .values_list("invoice_line", "worth")
    )
    return [
        LineLeft(by_key[printed.key], printed, given.get(printed.key, ZERO))
        for printed in creditable([_printed(line) for line in lines])
    ]


def propose_credit(
    *, invoice: Invoice, lines: Mapping[int, Decimal] | None = None, amount: Decimal | None = None
) -> ProposedCredit:
    """What a credit note would give back. Nothing is written; `InvoiceNotCreditable` says why it cannot be.

    Neither `lines` nor `amount`: all that is left. `lines` by the line's key, `amount` over all lines in proportion to
    what is left of each; both are worth in minor units, so with tax and before prepaid credit.
    """
    if lines is not None and amount is not None:
        raise InvoiceNotCreditable("Credit by line or by amount, not by both.", status=400)
    if invoice.status not in CREDITABLE:
        what = {InvoiceStatus.DRAFT: "a draft: change it before it is issued", InvoiceStatus.VOID: "void"}
        raise InvoiceNotCreditable(f"{invoice} is {what[InvoiceStatus(invoice.status)]}, so it cannot be credited.")
    known = lines_left(invoice)
    left = add(*(one.left for one in known))
    if left <= 0:
        raise InvoiceNotCreditable(f"Nothing is left of {invoice} to credit.")
    if lines is not None:
        wanted = _by_line(invoice, known, lines)
    elif amount is not None:
        _check_whole(amount, invoice.currency)
        if amount > left:
            raise InvoiceNotCreditable(
                f"Only {format_amount(left, invoice.currency)} is left of {invoice}; "
                f"{format_amount(amount, invoice.currency)} is more than that.",
                status=400,
            )
        wanted = spread(amount, [one.left for one in known])
    else:
        wanted = [one.left for one in known]
    parts = tuple(
        (one, part_of(one.printed, given=one.given, worth=worth))
        for one, worth in zip(known, wanted, strict=True)
        if worth
    )
    total = add(*(part.total for _, part in parts))
    asked = owed(invoice)
    to_invoice = min(total, asked)
    return ProposedCredit(
        parts=parts,
        subtotal=add(*(part.amount for _, part in parts)),
        credit=add(*(part.credit for _, part in parts)),
        tax=add(*(part.tax for _, part in parts)),
        total=total,
        to_invoice=to_invoice,
        to_balance=add(total, -to_invoice),
        owed=add(asked, -to_invoice),
    )


@transaction.atomic
def credit_invoice(
    *,
    invoice: Invoice,
    reason: str,
    now: datetime,
    by: str = "",
    lines: Mapping[int, Decimal] | None = None,
    amount: Decimal | None = None,
    cause: str = CreditNoteCause.OPERATOR,
    quantities: Mapping[int, Decimal] | None = None,
    explanations: Mapping[int, dict[str, Any]] | None = None,
    seen: ProposedCredit | None = None,
) -> CreditNote:
    """Write the credit note that `propose_credit` proposes, with the next number, and move the money.

    An invoice that asks for nothing any more is paid. `quantities` and `explanations` by the line's key say what a
    correction took back. What was `seen` before is all that is given: a button pressed twice credits once.
    """
    if not reason.strip():
        raise InvoiceNotCreditable("Say why it is credited; it stands on the credit note.", status=400)
    _lock(invoice)
    proposed = propose_credit(invoice=invoice, lines=lines, amount=amount)
    if seen is not None and proposed != seen:
        raise InvoiceNotCreditable(f"Something was credited or paid on {invoice} meanwhile; look again.")
    series, number = take_number(name=CREDIT_NOTES, prefix=settings.CREDIT_NOTE_PREFIX)
    note = CreditNote.objects.create(
        number=number,
        series=series,
        invoice=invoice,
        customer=invoice.customer,
        currency=invoice.currency,
        cause=cause,
        reason=reason.strip(),
        subtotal=proposed.subtotal,
        credit=proposed.credit,
        tax=proposed.tax,
        total=proposed.total,
        to_invoice=proposed.to_invoice,
        to_balance=proposed.to_balance,
        issued_at=now,
        issued_by=by,
        created_at=now,
    )
    earlier = _rates_given(invoice)
    CreditNoteLine.objects.bulk_create(
        CreditNoteLine(
            credit_note=note,
            invoice_line=one.line,
            position=position,
            description=one.line.description,
            amount=part.amount,
            credit=part.credit,
            tax=part.tax,
            tax_inclusive=part.tax_inclusive,
            quantity=(quantities or {}).get(one.line.pk),
            explanation={
                **(explanations or {}).get(one.line.pk, {}),
                "worth": plain(part.worth),
                "of": plain(one.printed.worth),
                "before": plain(one.given),
                "taxes": _taxes(one.line, part.tax, earlier.get(one.line.pk, [])),
            },
        )
        for position, (one, part) in enumerate(proposed.parts, start=1)
    )
    if note.credit:
        give_back(invoice=invoice, now=now, amount=note.credit, credit_note=note)
    if note.to_balance:
        move_balance(
            customer=invoice.customer,
            currency=invoice.currency,
            amount=note.to_balance,
            kind=BalanceEntryKind.CREDIT_NOTE,
            now=now,
            invoice=invoice,
            credit_note=note,
            reason=note.reason,
            author=by,
        )
    if invoice.status in OPEN:
        _ask_for(invoice, proposed.owed, now)
    return note


def _ask_for(invoice: Invoice, rest: Decimal, now: datetime) -> None:
    """Let the payment follow; an invoice that asks for nothing is paid."""
    payment = Payment.objects.filter(invoice=invoice)
    if rest:
        payment.update(amount=rest, updated_at=now)
        return
    Invoice.objects.filter(pk=invoice.pk, status__in=OPEN).update(status=InvoiceStatus.PAID, paid_at=now)
    payment.update(amount=rest, status=PaymentStatus.SUCCEEDED, updated_at=now)
    invoice.refresh_from_db()


def _lock(invoice: Invoice) -> None:
    """Keep others from the invoice and from the money it moves, and read it as it is now. Numbers are locked last."""
    lock_holdings(customer=invoice.customer, currency=invoice.currency)
    Invoice.objects.select_for_update(of=("self",)).get(pk=invoice.pk)
    invoice.refresh_from_db()


def _by_line(invoice: Invoice, known: Sequence[LineLeft], lines: Mapping[int, Decimal]) -> list[Decimal]:
    if not lines:
        raise InvoiceNotCreditable("Choose at least one line to credit.", status=400)
    left = {one.line.pk: one for one in known}
    for key, worth in lines.items():
        _check_whole(worth, invoice.currency)
        if key not in left:
            raise InvoiceNotCreditable(f"{invoice} has no such line to credit ({key}).", status=400)
        if worth > left[key].left:
            raise InvoiceNotCreditable(
                f"Only {format_amount(left[key].left, invoice.currency)} is left of “{left[key].line.description}”; "
                f"{format_amount(worth, invoice.currency)} is more than that.",
                status=400,
            )
    return [lines.get(one.line.pk, ZERO) for one in known]


def _check_whole(worth: Decimal, currency: str) -> None:
    if not worth.is_finite() or worth <= 0 or worth != worth.to_integral_value():
        raise InvoiceNotCreditable(
            f"A credit is above zero and in whole minor units of {currency}, not {worth}.", status=400
        )


def _printed(line: InvoiceLine) -> Printed:
    return Printed(
        key=line.pk,
        amount=line.amount,
        credit=line.credit,
        tax=line.tax,
        tax_inclusive=line.tax_inclusive,
        like=line.charge_id,
    )


def _rates_given(invoice: Invoice) -> dict[int, list[list[Decimal]]]:
    """By line, what each earlier credit note gave back of each of its rates."""
    found: dict[int, list[list[Decimal]]] = {}
    rows = CreditNoteLine.objects.filter(invoice_line__invoice=invoice).order_by("pk")
    for key, explanation in rows.values_list("invoice_line", "explanation"):
        found.setdefault(key, []).append([Decimal(rate["amount"]) for rate in explanation.get("taxes", ())])
    return found


def _taxes(line: InvoiceLine, tax: Decimal, earlier: Sequence[Sequence[Decimal]]) -> list[dict[str, str]]:
    """The part's tax by rate, as on the line."""
    amounts = by_rate(tax, [Decimal(rate["amount"]) for rate in line.taxes], earlier)
    return [{**rate, "amount": plain(amount)} for rate, amount in zip(line.taxes, amounts, strict=True)]

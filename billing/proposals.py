"""What should be billed, minus what was: the one function behind every invoice.

    should - billed = proposed

A period that nothing was billed for gets its lines; one that was billed gets an adjustment where the two differ, and
nothing where they agree. So the beat task, a second run, a preview, a correction after late or voided usage and the
making anew of a void invoice are the same question asked at different times (`propose`).
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

from django.db.models import Count, Max, Q, Sum

from billing.invoices import ProposedLine, propose_line
from billing.models import (
    Alignment,
    BillingPeriod,
    CreditNoteCause,
    CreditNoteLine,
    IgnoredCorrection,
    InvoiceLine,
    InvoiceStatus,
    LineKind,
    Subscription,
)
from billing.money import add, format_amount, format_units, plain
from billing.periods import Period, Rule, fraction, period_at, whole_period
from billing.pricing import (
    Commitment,
    Discount,
    FeeRule,
    Item,
    PricingInvalid,
    RatedLine,
    Usage,
    rate_fee,
    rate_period,
    waive,
)
from billing.products import charge_rule, price_conventions
from billing.quantities import proved_usage, usage_of
from customers.errors import Conflict
from meters.evidence import Evidence
from meters.models import Aggregation, Meter
from meters.partitions import MonthArchived

logger = logging.getLogger(__name__)

ZERO = Decimal(0)
WHOLE = Fraction(1)


class UsageNotPriceable(Conflict):
    """The price says nothing of such usage: above a last tier that ends, or of a value that has no price."""

    code = "USAGE_NOT_PRICEABLE"


# -- periods of a subscription ------------------------------------------------------------------------------


def usage_rule(subscription: Subscription) -> Rule:
    """How its time is cut into billing periods: the usage's own frequency, or the fee's."""
    price = subscription.price
    if price.usage_frequency_interval is None:
        return fee_rule(subscription)
    return _rule(subscription, price.usage_frequency_interval, price.usage_frequency_count)


def fee_rule(subscription: Subscription) -> Rule:
    """How its time is cut into the periods a fee is paid for."""
    price = subscription.price
    return _rule(subscription, price.payment_frequency_interval, price.payment_frequency_count)


def _rule(subscription: Subscription, interval: str | None, every: int | None) -> Rule:
    assert interval is not None, "a recurring price has its intervals: price_recurring_has_periods"  # noqa: S101
    return Rule(
        interval,
        every or 1,
        anchor=subscription.anchor,
        time_zone=subscription.time_zone,
        alignment=subscription.price.alignment,
    )


def fee_period(subscription: Subscription, period: BillingPeriod) -> tuple[Period, Period] | None:
    """The fee's period that begins with this billing period, and the uncut one it is part of; None where none does."""
    price = subscription.price
    if period.is_trial or price.fixed_amount == 0:
        return None
    if price.usage_frequency_interval is None:
        whole, end = _whole(period), period.end
        if end == subscription.cancelled_at:
            # The fee was due whole when the period began: cancelling cuts the usage, whichever was billed first.
            end = min(whole.end, subscription.expires_at)
        return Period(period.start, end), whole
    rule = fee_rule(subscription)
    if period.start < subscription.anchor:
        # The billing date was moved since, and fees counted from elsewhere: what was billed says from where.
        return _fee_counted_before(subscription, rule, period)
    found = period_at(rule, period.start)
    if found.start != period.start:
        return None
    whole = whole_period(rule, found)
    return Period(found.start, min(found.end, subscription.expires_at)), whole


def _fee_counted_before(subscription: Subscription, rule: Rule, period: BillingPeriod) -> tuple[Period, Period] | None:
    fees = InvoiceLine.objects.filter(subscription=subscription, kind=LineKind.FEE, period_start=period.start)
    end = fees.order_by("-pk").values_list("period_end", flat=True).first()
    if end is None:
        return None
    part = Period(period.start, end)
    return part, whole_period(rule, part) if rule.alignment == Alignment.CALENDAR else part


def _whole(period: BillingPeriod) -> Period:
    return Period(period.whole_start or period.start, period.whole_end or period.end)


def _share(subscription: Subscription, part: Period, whole: Period) -> Fraction:
    """How much of a whole period the part is, by the price's conventions."""
    if part == whole:
        return WHOLE
    conventions = price_conventions(subscription.price)
    return fraction(
        part,
        whole,
        time_zone=subscription.time_zone,
        by=conventions.proration,
        charge_last_day=conventions.charge_last_day,
    )


# -- what should be billed ----------------------------------------------------------------------------------


def _discounts(subscription: Subscription, at: datetime, known_at: datetime | None = None) -> tuple[Discount, ...]:
    """The subscription's discounts of a period that begins at `at`, in their order; of those given by `known_at`."""
    return tuple(
        Discount(percent=discount.percent, amount=discount.amount, on=discount.applies_to, name=discount.name)
        for discount in subscription.discounts.order_by("position")
        if discount.starts_at <= at and (discount.ends_at is None or at < discount.ends_at)
        if known_at is None or discount.created_at <= known_at
    )


def _rated_fee(subscription: Subscription, part: Period, whole: Period, known_at: datetime | None = None) -> RatedLine:
    price = subscription.price
    item = Item(
        key="fee",
        kind="fee",
        name=price.product.name,
        rule=FeeRule(price.fixed_amount, quantity=Decimal(subscription.quantity)),
        fraction=_share(subscription, part, whole),
    )
    (rated,) = rate_period(
        [item], discounts=_discounts(subscription, part.start, known_at), conventions=price_conventions(price)
    )
    return rated


def fee_line(
    subscription: Subscription, part: Period, whole: Period, *, known_at: datetime | None = None
) -> ProposedLine:
    """The fee of one period, as a proposed line; a part of it where the period is partial.

    As of `known_at`, discounts that were given later are left out.
    """
    price = subscription.price
    return propose_line(
        _rated_fee(subscription, part, whole, known_at),
        kind=LineKind.FEE,
        description=price.product.name,
        product=price.product,
        currency=price.currency,
        subscription=subscription,
        period_start=part.start,
        period_end=part.end,
        tax_inclusive=price.tax_inclusive,
    )


def fee_beginning(subscription: Subscription, at: datetime) -> Decimal:
    """What the fee comes to that begins at the end of a period, `at`; zero where none begins there or it ends."""
    if subscription.price.fixed_amount == 0 or not subscription.anchor <= at < subscription.expires_at:
        return ZERO
    rule = fee_rule(subscription)
    found = period_at(rule, at)
    if found.start != at:
        return ZERO
    part = Period(found.start, min(found.end, subscription.expires_at))
    return _rated_fee(subscription, part, whole_period(rule, found)).amount


def fee_of(subscription: Subscription, period: BillingPeriod) -> Decimal:
    """What the fee that begins with this period comes to."""
    found = fee_period(subscription, period)
    return _rated_fee(subscription, *found).amount if found is not None else ZERO


def usage_lines(
    subscription: Subscription,
    period: BillingPeriod,
    *,
    so_far: datetime | None = None,
    prove: bool = False,
    known: Mapping[int, Usage] | None = None,
    known_at: datetime | None = None,
) -> list[ProposedLine]:
    """The usage of one period, rated: a line a charge, also where nothing was used, and what the commitment adds.

    With `so_far`, a level (weighted_sum) has held until that instant and not yet until the period's end, and no
    commitment is filled up. With `prove`, each line carries the evidence it stands on. What is `known` of a charge, by
    its primary key, is not read; as of `known_at`, discounts that were given later are left out.
    """
    price, customer = subscription.price, subscription.customer
    charges = {str(charge.pk): charge for charge in price.charges.select_related("meter")}
    proofs: dict[str, Evidence | None] = {}
    items = []
    for key, charge in charges.items():
        span = {"start": period.start, "end": _held_until(charge.meter, period, so_far)}
        if known is not None and charge.pk in known:
            usage = known[charge.pk]
        elif prove:
            proved = proved_usage(charge=charge, customer=customer, **span)
            usage, proofs[key] = proved.usage, proved.evidence
        else:
            usage = usage_of(charge=charge, customer=customer, **span)
        items.append(Item(key=key, kind="usage", name=charge.meter.name, rule=charge_rule(charge), usage=usage))
    commitment = None
    if price.commitment is not None and not period.is_trial and so_far is None:
        commitment = Commitment(price.commitment, covers=price.commitment_covers)
        if (fee := fee_period(subscription, period)) is not None:
            items.insert(0, Item(key="fee", kind="fee", rated=_rated_fee(subscription, *fee, known_at)))
    try:
        rated = rate_period(
            items,
            discounts=_discounts(subscription, period.start, known_at),
            commitment=commitment,
            conventions=price_conventions(price),
            fraction=_share(subscription, Period(period.start, period.end), _whole(period)),
        )
    except PricingInvalid as error:
        raise UsageNotPriceable(error.message) from error
    if period.is_trial:
        rated = tuple(waive(line, because="free during the trial") for line in rated)
    lines = []
    for line in rated:
        if line.kind == "fee":
            continue
        of = None if line.kind == "commitment" else charges[line.key]
        proposed = propose_line(
            line,
            kind=LineKind.USAGE if of else LineKind.COMMITMENT,
            description=of.meter.name if of else f"{price.product.name}, up to the commitment",
            product=price.product,
            currency=price.currency,
            subscription=subscription,
            charge=of,
            period_start=period.start,
            period_end=period.end,
            tax_inclusive=price.tax_inclusive,
            evidence=proofs.get(line.key),
        )
        if of is not None or proposed.amount:
            lines.append(proposed)
    return lines


def _held_until(meter: Meter, period: BillingPeriod, so_far: datetime | None) -> datetime:
    if so_far is None or meter.aggregation != Aggregation.WEIGHTED_SUM:
        return period.end
    return max(period.start, min(period.end, so_far))


# -- what was billed ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Billed:
    """What a charge of a period was billed so far, in all its lines; `live` is the part on invoices that stand."""

    quantity: Decimal
    billable_units: Decimal
    exact_amount: Decimal
    amount: Decimal
    live: Decimal


_NOTHING_BILLED = Billed(ZERO, ZERO, ZERO, ZERO, ZERO)
_USAGE = Q(kind=LineKind.USAGE) | Q(kind=LineKind.ADJUSTMENT, charge__isnull=False)
_COMMITMENT = Q(kind=LineKind.COMMITMENT) | Q(kind=LineKind.ADJUSTMENT, adjusts=LineKind.COMMITMENT)
_FEE = Q(kind=LineKind.FEE) | (Q(kind=LineKind.ADJUSTMENT, charge__isnull=True) & ~Q(adjusts=LineKind.COMMITMENT))
# Named otherwise than the columns, which Django would take them for.
_SUMS = {
    "all_quantity": Sum("quantity"),
    "all_billable_units": Sum("billable_units"),
    "all_exact_amount": Sum("exact_amount"),
    "all_amount": Sum("amount"),
    "all_live": Sum("amount", filter=Q(live=True), default=ZERO),
}


def billed_usage(subscription: Subscription, period: BillingPeriod) -> dict[int | None, Billed]:
    """What was billed for the usage of a period, by charge (None: the commitment).

    Lines of a void invoice count, unless it was made anew; so do differences that the product ignores, and credit notes
    that gave usage back. What an operator credited was billed all the same, but stands no more.
    """
    found: dict[int | None, Billed] = {}
    lines = InvoiceLine.objects.filter(_USAGE | _COMMITMENT, subscription=subscription, period_start=period.start)
    rows: Iterable[dict[str, Any]] = lines.filter(counts=True).values("charge").annotate(**_SUMS).order_by()  # type: ignore[assignment]
    for row in rows:
        found[row["charge"]] = Billed(
            row["all_quantity"], row["all_billable_units"], row["all_exact_amount"], row["all_amount"], row["all_live"]
        )
    if not found:
        return found
    stands = any(billed.live for billed in found.values())
    for ignored in IgnoredCorrection.objects.filter(period=period):
        # A commitment may have had to be filled up only after the period was billed: then no line is of it.
        found[ignored.charge_id] = _with(
            found.get(ignored.charge_id, _NOTHING_BILLED),
            ignored.quantity,
            ignored.billable_units,
            ignored.exact_amount,
            ignored.amount,
            # What one charge ignored, another may have to take back: together they cost the period what it did.
            live=ignored.amount if stands else ZERO,
        )
    given_back = CreditNoteLine.objects.filter(invoice_line__in=lines.filter(counts=True))
    for note in given_back.select_related("invoice_line", "credit_note"):
        charge: int | None = note.invoice_line.charge_id
        if charge not in found:
            continue
        quantity, amount = ZERO, ZERO
        if note.credit_note.cause == CreditNoteCause.CORRECTION:
            quantity, amount = note.quantity or ZERO, note.amount
        found[charge] = _with(found[charge], -quantity, -quantity, -amount, -amount, live=-note.amount)
    return found


def _with(
    billed: Billed, quantity: Decimal, units: Decimal, exact: Decimal, amount: Decimal, *, live: Decimal
) -> Billed:
    return Billed(
        add(billed.quantity, quantity),
        add(billed.billable_units, units),
        add(billed.exact_amount, exact),
        add(billed.amount, amount),
        add(billed.live, live),
    )


# -- the difference -----------------------------------------------------------------------------------------


def propose(
    subscription: Subscription,
    *,
    periods: Iterable[BillingPeriod],
    fees_until: datetime | None,
    prove: bool = False,
) -> list[ProposedLine]:
    """What is still to be billed: the fees of periods begun by `fees_until`, then the usage of `periods`."""
    lines = fees_owed(subscription, until=fees_until) if fees_until is not None else []
    for period in periods:
        lines += usage_owed(subscription, period, prove=prove)
    return lines


def fees_owed(subscription: Subscription, *, until: datetime) -> list[ProposedLine]:
    """The fee of each period that has begun by `until` and has no fee billed yet; oldest first.

    Of one that runs longer than the fee billed for it (its subscription's end was moved) the rest.
    """
    if subscription.price.fixed_amount == 0:
        return []
    counts = Q(counts=True)
    rows = (
        InvoiceLine.objects.filter(_FEE, subscription=subscription, period_start__isnull=False)
        .values("period_start")
        .annotate(
            lines=Count("pk", filter=counts),
            fees=Count("pk", filter=counts & Q(kind=LineKind.FEE)),
            until=Max("period_end", filter=counts),
            billed=Sum("amount", filter=counts),
        )
        .order_by()
    )
    billed = {row["period_start"]: row for row in rows}
    of_its_own = subscription.price.usage_frequency_interval is not None
    owed: list[ProposedLine] = []
    paid_until = subscription.anchor
    for period in subscription.periods.filter(start__lte=until).order_by("start"):
        row = billed.get(period.start)
        if of_its_own and row is None and subscription.anchor < period.start < paid_until:
            continue  # within a fee that was billed: none begins here
        if row is not None and row["fees"] and period.start >= subscription.anchor:
            paid_until = max(paid_until, row["until"])
        if row is None and period.start < subscription.anchor and of_its_own:
            continue  # the billing date was moved since, which needs every fee up to then to be billed
        if row is not None and row["fees"] and row["until"] >= period.end:
            continue
        if (found := fee_period(subscription, period)) is None:
            continue
        part, whole = found
        if row is None or not row["lines"]:
            owed.append(fee_line(subscription, part, whole))
        elif not row["fees"] or row["until"] < part.end:
            line = fee_line(subscription, part, whole)
            if (rest := add(line.amount, -row["billed"])) > 0:
                owed.append(_rest_of_fee(subscription, line, rest))
    return owed


def _rest_of_fee(subscription: Subscription, fee: ProposedLine, rest: Decimal) -> ProposedLine:
    line = propose_line(
        rate_fee(quantity=Decimal(1), fee=rest),
        kind=LineKind.ADJUSTMENT,
        description=f"{fee.description}, the rest of its period",
        product=fee.product,
        currency=subscription.price.currency,
        subscription=subscription,
        period_start=fee.period_start,
        period_end=fee.period_end,
        tax_inclusive=fee.tax_inclusive,
    )
    return replace(line, adjusts=LineKind.FEE)


def usage_owed(subscription: Subscription, period: BillingPeriod, *, prove: bool = False) -> list[ProposedLine]:
    """What a period should have cost by now, minus what was billed for it.

    All its lines where nothing was billed; else an adjustment a charge that differs.
    """
    should = usage_lines(subscription, period, prove=prove)
    billed = billed_usage(subscription, period)
    if not billed:
        return should
    lines = []
    for line in should:
        charge = line.charge.pk if line.charge is not None else None
        if charge not in billed:
            lines.append(line)
        elif (difference := _adjustment(subscription, line, billed[charge])) is not None:
            lines.append(difference)
    if None in billed and not any(line.charge is None for line in should):
        # The commitment had to be filled up, and by now the usage reaches it.
        nothing = _no_commitment(subscription, period)
        if (difference := _adjustment(subscription, nothing, billed[None])) is not None:
            lines.append(difference)
    return lines


def adjustment_lines(subscription: Subscription, period: BillingPeriod, *, prove: bool = False) -> list[ProposedLine]:
    """What a closed period still has to be adjusted by. One that nothing was billed for has nothing to adjust."""
    if not billed_usage(subscription, period):
        return []
    return usage_owed(subscription, period, prove=prove)


def _no_commitment(subscription: Subscription, period: BillingPeriod) -> ProposedLine:
    price = subscription.price
    return propose_line(
        rate_fee(quantity=ZERO, fee=ZERO),
        kind=LineKind.COMMITMENT,
        description=f"{price.product.name}, up to the commitment",
        product=price.product,
        currency=price.currency,
        subscription=subscription,
        period_start=period.start,
        period_end=period.end,
        tax_inclusive=price.tax_inclusive,
    )


def _adjustment(subscription: Subscription, should: ProposedLine, billed: Billed) -> ProposedLine | None:
    """The difference as one signed line; None where there is none. More is never given back than stands."""
    amount = add(should.amount, -billed.amount)
    if amount < 0:
        # Where less than nothing stands (an invoice is void, and a credit for it is not) nothing is asked back.
        amount = min(max(amount, -billed.live), ZERO)
    if amount == 0:
        return None
    currency = subscription.price.currency
    so_far = format_amount(billed.amount, currency)
    by_now = format_amount(should.amount, currency)
    if should.kind == LineKind.COMMITMENT:
        text = (
            f"{by_now} is missing to the commitment by now; billed so far {so_far}: {format_amount(amount, currency)}"
        )
    else:
        text = (
            f"{format_units(should.quantity)} {should.measurement_unit}".rstrip()
            + f" by now, which is {by_now}; billed so far {format_units(billed.quantity)} for {so_far}: "
            + format_amount(amount, currency)
        )
    return replace(
        should,
        kind=LineKind.ADJUSTMENT,
        adjusts=should.kind,
        description=f"{should.description}, adjustment",
        quantity=add(should.quantity, -billed.quantity),
        free_units=ZERO,
        billable_units=add(should.billable_units, -billed.billable_units),
        exact_amount=add(should.exact_amount, -billed.exact_amount),
        discount=ZERO,
        amount=amount,
        explanation={
            "model": "adjustment",
            "should_quantity": plain(should.quantity),
            "should_amount": plain(should.amount),
            "should": {key: value for key, value in should.explanation.items() if key != "text"},
            "billed_quantity": plain(billed.quantity),
            "billed_amount": plain(billed.amount),
            "amount": plain(amount),
            "text": text,
        },
    )


def refunds(subscription: Subscription) -> list[ProposedLine]:
    """What was billed for periods that a cancellation kept from beginning (closed early, then cancelled), taken back.

    The fee, and what usage periods cost without any usage: minimums, flat prices, the commitment.
    """
    if subscription.cancelled_at is None:
        return []
    price = subscription.price
    # A draft is made anew before it is issued, and then knows of the cancellation by itself.
    never_begun = (
        InvoiceLine.objects.filter(subscription=subscription, live=True, period_start__gte=subscription.cancelled_at)
        .exclude(invoice__status=InvoiceStatus.DRAFT)
        .select_related("charge__meter")
    )
    credited: dict[int, Decimal] = dict(
        CreditNoteLine.objects.filter(invoice_line__in=never_begun)
        .values_list("invoice_line")
        .annotate(amount=Sum("amount"))
        .values_list("invoice_line", "amount")
    )
    found: dict[tuple[datetime, str, int | None], tuple[InvoiceLine, Decimal, Decimal]] = {}
    for line in never_begun.order_by("period_start", "pk"):
        assert line.period_start is not None, "chosen by it"  # noqa: S101
        key = (line.period_start, line.adjusts or _adjusted_by_old(line), line.charge_id)
        first, quantity, amount = found.get(key, (line, ZERO, ZERO))
        found[key] = (first, add(quantity, line.quantity), add(amount, line.amount, -credited.get(line.pk, ZERO)))
    taken_back = []
    for (start, kind, _), (billed, quantity, amount) in found.items():
        if amount == 0:
            continue
        charge = billed.charge
        proposed = propose_line(
            rate_fee(quantity=Decimal(1), fee=-amount),
            kind=LineKind.ADJUSTMENT,
            description=f"{charge.meter.name if charge else price.product.name}, a period that did not begin",
            product=price.product,
            currency=price.currency,
            subscription=subscription,
            charge=charge,
            period_start=start,
            period_end=billed.period_end,
            tax_inclusive=price.tax_inclusive,
        )
        if charge is not None:
            proposed = replace(proposed, quantity=-quantity, billable_units=-quantity)
        taken_back.append(replace(proposed, adjusts=kind))
    return taken_back


def _adjusted_by_old(line: InvoiceLine) -> str:
    """What a line is for: its own kind, and of adjustments from before they said so, what they can only be."""
    if line.kind != LineKind.ADJUSTMENT:
        return line.kind
    return LineKind.FEE if line.charge_id is None else LineKind.USAGE


@dataclass(frozen=True, slots=True)
class Corrections:
    """What earlier periods still differ by; `unreadable` are those whose month has left the log."""

    lines: tuple[ProposedLine, ...]
    unreadable: frozenset[int]


def corrections_of(
    subscription: Subscription, periods: Iterable[BillingPeriod], *, prove: bool = False, refund: bool = True
) -> Corrections:
    """The adjustments of closed periods, and with `refund` what was billed for periods that never began."""
    found: list[ProposedLine] = []
    unreadable: set[int] = set()
    for period in periods:
        try:
            found += adjustment_lines(subscription, period, prove=prove)
        except MonthArchived as error:
            # It begins or ends inside an hour of a month that left the log, and a void or a backfill came beside it.
            # It stays watched, so that it is corrected once the month is restored; what is due goes on meanwhile.
            unreadable.add(period.pk)
            logger.warning("the closed period %s cannot be compared with what was billed: %s", period, error.message)
    return Corrections((*found, *(refunds(subscription) if refund else ())), frozenset(unreadable))

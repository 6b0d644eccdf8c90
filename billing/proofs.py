"""An invoice proves itself: each line counted again from the raw log and rated again, and every sum added up anew.

    the very events -> quantity -> amount -> lines -> totals -> what was asked for

A line is identical when its meter's definition, its events (by number and digest), its quantity and what it came to are
all what they were when it was billed. Whatever was voided or arrived later does not change that; it is named beside it,
with what it will change in money. Nothing is written.
"""

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from django.db.models import Q, QuerySet, Sum

from billing.line_events import (
    METERED,
    LineSource,
    find_instant,
    kept_evidence,
    recounted,
    source_of,
)
from billing.models import (
    BalanceEntry,
    BalanceEntryKind,
    BillingPeriod,
    Charge,
    CreditNote,
    CreditNoteCause,
    CreditNoteLine,
    GrantEntry,
    GrantEntryKind,
    IgnoredCorrection,
    Invoice,
    InvoiceLine,
    InvoiceStatus,
    LineKind,
    Subscription,
)
from billing.money import add, format_amount, format_units, plain
from billing.pricing import LineToSettle, PricingInvalid, Tax, Usage, rate_fee, settle
from billing.products import charge_rule, settling_conventions
from billing.proposals import ProposedLine, adjustment_lines, fee_line, fee_period, usage_lines
from billing.quantities import group_keys, needs_values, usage_from
from billing.subscriptions import natural_period
from customers.errors import DomainError
from meters.evidence import Recount, changed_since, event_values, meter_version
from meters.partitions import MonthArchived

ZERO = Decimal(0)
# Counting again costs some microseconds an event; more than this takes too long for a page.
MOST_EVENTS_ON_A_PAGE = 2_000_000


class Outcome(StrEnum):
    IDENTICAL = "identical"
    DIFFERENT = "different"
    # Events it needs are not in the log, or it never said which those were.
    NOT_PROVABLE = "not provable"


@dataclass(frozen=True, slots=True)
class Difference:
    """Something the invoice says, and what was found instead."""

    what: str
    printed: str
    found: str

    def __str__(self) -> str:
        return f"{self.what}: the invoice says {self.printed}, found {self.found}"


@dataclass(frozen=True, slots=True)
class SinceThen:
    """What became of a line's events after it was billed, and what that still changes in money (minor units)."""

    gone: int
    came: int
    pending: Decimal | None


@dataclass(frozen=True, slots=True)
class LineProof:
    line: InvoiceLine
    differences: tuple[Difference, ...] = ()
    since: SinceThen | None = None
    # Why it cannot be proved, or only in part.
    unproved: str = ""

    @property
    def outcome(self) -> Outcome:
        if self.differences:
            return Outcome.DIFFERENT
        return Outcome.NOT_PROVABLE if self.unproved else Outcome.IDENTICAL


@dataclass(frozen=True, slots=True)
class Verification:
    """What verifying an invoice found: of each line, and of its sums."""

    invoice: Invoice
    lines: tuple[LineProof, ...]
    sums: tuple[Difference, ...]
    verified_at: datetime

    @property
    def outcome(self) -> Outcome:
        outcomes = [proof.outcome for proof in self.lines]
        if self.sums or Outcome.DIFFERENT in outcomes:
            return Outcome.DIFFERENT
        return Outcome.NOT_PROVABLE if Outcome.NOT_PROVABLE in outcomes else Outcome.IDENTICAL

    @property
    def events(self) -> int:
        """How many events were counted again."""
        return events_behind(self.invoice)


def verify_invoice(*, invoice: Invoice, now: datetime) -> Verification:
    """Count, rate and add up everything on the invoice again, and say what is not as it was billed."""
    lines = list(
        invoice.lines.select_related(
            "charge__meter",
            "charge__price__product",
            "subscription__price__product",
            "subscription__customer",
            "product",
        ).order_by("position")
    )
    for line in lines:
        line.invoice = invoice
    metered = [line for line in lines if line.kind in METERED and line.charge_id is not None]
    counted = {line.pk: _count_again(line) for line in metered if not _never_began(line)}
    rated = _rate_again(lines, counted)
    proofs = [_prove(line, counted.get(line.pk), rated.get(line.pk)) for line in lines]
    return Verification(invoice, tuple(proofs), tuple(_check_sums(invoice, lines)), now)


def events_behind(invoice: Invoice) -> int:
    """How many events verifying the invoice counts again."""
    return invoice.lines.aggregate(all=Sum("events_counted"))["all"] or 0


def sentences(verification: Verification) -> list[tuple[Outcome, str]]:
    """The result for people: (outcome, sentence) of each line and of the sums, in the order of the invoice."""
    told = []
    for proof in verification.lines:
        words = line_in_words(proof, verification.invoice)
        told.append((proof.outcome, f"{proof.line.position}. {proof.line.description}: {words}"))
    if verification.sums:
        told.append((Outcome.DIFFERENT, f"Sums: {'; '.join(str(difference) for difference in verification.sums)}."))
    else:
        told.append((Outcome.IDENTICAL, "Sums: lines, prepaid credit, tax, balance and credit notes add up."))
    return told


def line_in_words(proof: LineProof, invoice: Invoice) -> str:
    """One line's result in a sentence or two, without its name."""
    metered = proof.line.kind in METERED and proof.line.charge_id is not None
    words: list[str] = []
    if proof.differences:
        words.append(f"different. {'; '.join(map(str, proof.differences))}")
    elif not proof.unproved:
        words.append("identical as of issue" if metered else "identical")
    if proof.unproved:
        words.append(f"not provable. {proof.unproved.rstrip('.')}")
    since = proof.since
    if since is not None and (since.gone or since.came):
        level = proof.line.charge is not None and proof.line.charge.meter.carry_forward
        # What held before a period may be void, or no longer the last before it.
        changes = [f"{_events(since.gone)} {'count no more' if level else 'voided'}"] if since.gone else []
        changes += [f"{_events(since.came)} arrived late"] if since.came else []
        if since.pending is None:
            money = "what that changes cannot be said"
        elif since.pending:
            money = f"pending {format_amount(since.pending, invoice.currency)}"
        else:
            money = "nothing pending"
        words.append(f"since then {', '.join(changes)}; {money}")
    return f"{'; '.join(words)}."


def _events(count: int) -> str:
    return f"{format_units(Decimal(count))} event{'' if count == 1 else 's'}"


# -- the quantity --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Counted:
    """A line's quantity from the raw log; or why there is none."""

    source: LineSource | None
    recount: Recount | None
    why: str = ""


def _count_again(line: InvoiceLine) -> _Counted:
    try:
        source, found = find_instant(source_of(line))
    except (DomainError, PricingInvalid) as error:
        return _Counted(None, None, error.message)
    return _Counted(source, found)


def _prove(line: InvoiceLine, counted: _Counted | None, rated: "_Rated | None") -> LineProof:
    differences: list[Difference] = []
    since, unproved = None, ""
    if counted is not None:
        if counted.source is None or counted.recount is None:
            unproved = counted.why
        else:
            differences += _compare_events(line, counted.recount)
            since = _since(line, counted.source)
    if rated is not None:
        differences += rated.differences
        unproved = unproved or rated.unproved
    differences += _check_line(line)
    return LineProof(line, tuple(differences), since, unproved)


def _compare_events(line: InvoiceLine, found: Recount) -> Iterator[Difference]:
    kept = kept_evidence(line)
    assert line.charge is not None, "metered lines have a charge"  # noqa: S101
    if kept.meter_version != found.evidence.meter_version:
        version = meter_version(line.charge.meter)
        yield Difference("meter definition", kept.meter_version, version)
    if kept.events != found.evidence.events:
        yield Difference("events", format_units(Decimal(kept.events)), format_units(Decimal(found.evidence.events)))
    if kept.digest != found.evidence.digest:
        yield Difference("digest of the events", kept.digest, found.evidence.digest)
    stood_on = _should_quantity(line)
    if stood_on is not None and stood_on != found.quantity:
        yield Difference("quantity", plain(stood_on), plain(found.quantity))


def _should_quantity(line: InvoiceLine) -> Decimal | None:
    """What was metered: the line's own quantity; of an adjustment, what the period had by then."""
    if line.kind != LineKind.ADJUSTMENT:
        return line.quantity
    told = line.explanation.get("should_quantity")
    return None if told is None else _number(told)


def _since(line: InvoiceLine, source: LineSource) -> SinceThen | None:
    """What changed since, if the period was not looked at again by a later line."""
    try:
        changed = changed_since(
            meter=source.meter,
            customer=source.customer,
            start=source.start,
            end=source.end,
            up_to=source.up_to,
            voided_before=source.as_of,
        )
    except MonthArchived:
        return None
    if not changed.gone and not changed.came:
        return SinceThen(0, 0, ZERO)
    return SinceThen(changed.gone, changed.came, _pending(line))


def _pending(line: InvoiceLine) -> Decimal | None:
    """What the line's charge and period still have to be adjusted by; None where that cannot be said."""
    period = _period_of(line)
    if period is None or line.subscription is None:
        return None
    try:
        lines = adjustment_lines(line.subscription, period)
    except (DomainError, PricingInvalid):
        return None
    return add(*(found.amount for found in lines if found.charge is not None and found.charge.pk == line.charge_id))


def _period_of(line: InvoiceLine) -> BillingPeriod | None:
    if line.period_start is None:
        return None
    return BillingPeriod.objects.filter(subscription=line.subscription_id, start=line.period_start).first()


# -- the amount ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Rated:
    differences: tuple[Difference, ...] = ()
    unproved: str = ""


def _rate_again(lines: Sequence[InvoiceLine], counted: dict[int, _Counted]) -> dict[int, _Rated]:
    """Every line rated anew by the price version it was sold at; by its primary key.

    The lines of one period are rated together, since discounts, a commitment and rounding may go over all of them.
    """
    results: dict[int, _Rated] = {}
    together: dict[tuple[int, datetime], list[InvoiceLine]] = {}
    for line in lines:
        if line.subscription_id is None or line.period_start is None:
            results[line.pk] = _rate_once(line)
        elif line.kind == LineKind.FEE:
            results[line.pk] = _rate_fee_again(line)
        elif line.kind == LineKind.ADJUSTMENT and line.adjusts not in (LineKind.USAGE, LineKind.COMMITMENT):
            results[line.pk] = _rate_once(line)
        elif _never_began(line):
            results[line.pk] = _take_back_again(line)
        else:
            together.setdefault((line.subscription_id, line.period_start), []).append(line)
    for group in together.values():
        results |= _rate_period_again(group, counted)
    return results


def _rate_period_again(group: Sequence[InvoiceLine], counted: dict[int, _Counted]) -> dict[int, _Rated]:
    first = group[0]
    period = _period_of(first)
    assert first.subscription is not None, "lines of a period have their subscription"  # noqa: S101
    subscription = _as_sold(first.subscription, group)
    assert first.period_start is not None, "chosen by it"  # noqa: S101
    if first.period_end is None:
        return _all(group, "It does not say which period it is for.")
    if period is None:
        # Billed early, and cancelled before it began: nothing but the lines is left of it.
        _, whole = natural_period(subscription, first.period_start)
        period = BillingPeriod(start=first.period_start, whole_start=whole.start, whole_end=whole.end)
    # Billed early and cancelled since, it ended before what it was billed for. What it is part of is on record.
    period.end = first.period_end
    try:
        known = _usages(subscription, group, counted)
        should = usage_lines(subscription, period, known=known, known_at=_made_at(first))
    except (DomainError, ValueError) as error:
        return _all(group, str(error))
    by_charge = {line.charge.pk if line.charge is not None else None: line for line in should}
    results = {}
    for line in group:
        found = by_charge.get(line.charge_id)
        if line.kind == LineKind.ADJUSTMENT:
            results[line.pk] = _Rated(tuple(_compare_adjustment(line, found)))
        elif found is None:
            results[line.pk] = _Rated((Difference("amount", _money(line.amount, line), _money(ZERO, line)),))
        else:
            results[line.pk] = _Rated(tuple(_compare(line, found)))
    return results


class _Unknown(ValueError):
    """A usage that the rating needs is not to be had."""


def _all(group: Iterable[InvoiceLine], why: str) -> dict[int, _Rated]:
    return {line.pk: _Rated(unproved=why) for line in group}


def _as_sold(subscription: Subscription, group: Sequence[InvoiceLine]) -> Subscription:
    """The subscription with the price version that the lines were billed by; it may have been moved since."""
    sold = next((line.charge.price for line in group if line.charge is not None), subscription.price)
    if sold == subscription.price:
        return subscription
    before = copy.copy(subscription)
    before.price = sold
    return before


def _usages(subscription: Subscription, group: Sequence[InvoiceLine], counted: dict[int, _Counted]) -> dict[int, Usage]:
    """The usage of every charge of the price, as it was when the lines were billed."""
    lines = {line.charge_id: line for line in group if line.charge_id is not None}
    sources = [found.source for line in group if (found := counted.get(line.pk)) and found.source is not None]
    usages = {}
    for charge in subscription.price.charges.select_related("meter"):
        line = lines.get(charge.pk)
        found = counted.get(line.pk) if line is not None else None
        if found is not None and found.source is not None and found.recount is not None:
            usages[charge.pk] = _usage(charge, found.source, found.recount)
        elif line is not None:
            usages[charge.pk] = _printed_usage(charge, line)
        elif (told := _told_without_a_line(charge, group)) is not None:
            usages[charge.pk] = told
        elif (like := _like_the_others(charge, group, sources)) is not None:
            usages[charge.pk] = _other_usage(charge, like)
    return usages


def _lines_of_charge_before(charge: Charge, group: Sequence[InvoiceLine]) -> QuerySet[InvoiceLine]:
    """What was billed for the charge and period before these lines were made; the last first."""
    return InvoiceLine.objects.filter(
        subscription=group[0].subscription_id,
        period_start=group[0].period_start,
        charge=charge,
        pk__lt=min(line.pk for line in group),
    ).order_by("-pk")


def _told_without_a_line(charge: Charge, group: Sequence[InvoiceLine]) -> Usage | None:
    """The usage that the last correction of a charge was for, if it was given back by credit note or ignored.

    Then it differed and has no line all the same, so no evidence of its own: what the record says is all there is. None
    where no such record came after the charge's last line, or where the price needs more than the quantity.
    """
    rule = charge_rule(charge)
    if needs_values(rule) or group_keys(rule, charge.meter) is not None:
        return None
    first, last = group[0], _lines_of_charge_before(charge, group).select_related("invoice").first()
    if last is None:
        return None
    when, since = _made_at(first), _made_at(last)
    notes = CreditNoteLine.objects.filter(
        credit_note__cause=CreditNoteCause.CORRECTION,
        credit_note__issued_at__range=(since, when),
        invoice_line__subscription=first.subscription_id,
        invoice_line__period_start=first.period_start,
        invoice_line__charge=charge,
    )
    ignored = IgnoredCorrection.objects.filter(period=_period_of(first), charge=charge, found_at__range=(since, when))
    told = [
        *notes.values_list("credit_note__issued_at", "pk", "explanation__should_quantity"),
        *ignored.values_list("found_at", "pk", "explanation__should_quantity"),
    ]
    if not told:
        return None
    *_, quantity = max(told, key=lambda one: one[:2])
    return None if quantity is None else Usage(quantity=_number(quantity))


def _like_the_others(charge: Charge, group: Sequence[InvoiceLine], sources: Sequence[LineSource]) -> LineSource | None:
    """How to ask for a charge that is not on the invoice, because nothing differed from what its last line counted.

    The other lines say as of when. Their watermark alone will not do: one without events may be proved by an old one.
    """
    lines = _lines_of_charge_before(charge, group)
    last = lines.select_related("invoice__customer", "charge__meter", "charge__price").first()
    before = _count_again(last).source if last is not None else None
    if before is None:
        return max(sources, key=lambda source: source.up_to, default=None)
    # Alone, as of the invoice: where more would be given back than stands, voided usage has no line either.
    others = max(sources, key=lambda source: source.up_to, default=replace(before, as_of=_made_at(group[0])))
    return replace(others, up_to=max(others.up_to, before.up_to))


def _usage(charge: Charge, source: LineSource, found: Recount) -> Usage:
    rule = charge_rule(charge)
    values = None
    if needs_values(rule):
        values = event_values(
            meter=source.meter,
            customer=source.customer,
            start=source.start,
            end=source.end,
            up_to=source.up_to,
            voided_before=source.as_of,
        )
    return usage_from(recount=found, meter=charge.meter, rule=rule, values=values)


def _printed_usage(charge: Charge, line: InvoiceLine) -> Usage:
    """Where the events are gone: what the line says, if that is all the price needs."""
    rule, quantity = charge_rule(charge), _should_quantity(line)
    if quantity is None or needs_values(rule) or line.unit_price is None:
        raise _Unknown("Its price needs the events.")
    return Usage(quantity=quantity, events=line.events_counted)


def _other_usage(charge: Charge, like: LineSource) -> Usage:
    rule = charge_rule(charge)
    source = LineSource(
        like.line,
        charge.meter,
        like.customer,
        like.start,
        like.end,
        group_keys(rule, charge.meter),
        like.up_to,
        like.as_of,
    )
    return _usage(charge, source, recounted(source))


def _compare(line: InvoiceLine, found: ProposedLine) -> Iterator[Difference]:
    """Every figure of a line, printed and rated anew."""
    for what, printed, again in (
        ("free units", line.free_units, found.free_units),
        ("chargeable units", line.billable_units, found.billable_units),
        ("price per unit", line.unit_price, found.unit_price),
        ("discount", line.discount, found.discount),
        ("exact amount", line.exact_amount, found.exact_amount),
    ):
        if printed != again:
            yield Difference(what, _figure(printed), _figure(again))
    if line.amount != found.amount:
        yield Difference("amount", _money(line.amount, line), _money(found.amount, line))


def _compare_adjustment(line: InvoiceLine, should: ProposedLine | None) -> Iterator[Difference]:
    """Should minus billed: both are looked at, and then the difference."""
    by_then = should.amount if should is not None else ZERO
    told_should = _number(line.explanation.get("should_amount", "0"))
    told_billed = _number(line.explanation.get("billed_amount", "0"))
    if told_should != by_then:
        yield Difference("should have cost", _money(told_should, line), _money(by_then, line))
    billed = _billed_before(line)
    given_back = _given_back_with(line)
    if told_billed != add(billed, given_back):
        yield Difference("billed before", _money(told_billed, line), _money(add(billed, given_back), line))
    told = line.explanation
    if "should_quantity" in told and "billed_quantity" in told:
        units = add(_number(told["should_quantity"]), -_number(told["billed_quantity"]))
        if line.quantity != units:
            yield Difference("quantity", plain(line.quantity), plain(units))
    difference = add(by_then, -billed)
    # More is never given back than stands on invoices that are not void.
    limited = difference < line.amount <= 0
    if line.amount != difference and not limited:
        yield Difference("amount", _money(line.amount, line), _money(difference, line))


def _lines_before(line: InvoiceLine) -> Q:
    """The other lines of the same charge and period that counted as billed when this one was made."""
    same = Q(subscription=line.subscription_id, period_start=line.period_start, pk__lt=line.pk)
    if line.charge_id is not None:
        same &= Q(charge=line.charge_id, kind__in=[LineKind.USAGE, LineKind.ADJUSTMENT])
    else:
        same &= Q(kind=LineKind.COMMITMENT) | Q(kind=LineKind.ADJUSTMENT, adjusts=LineKind.COMMITMENT)
    # One whose void invoice was made anew counts no more, from when it was made void.
    return same & (Q(counts=True) | Q(invoice__voided_at__gt=line.invoice.created_at))


def _billed_before(line: InvoiceLine) -> Decimal:
    """What counted as billed for the charge and period when the line was made, less what was given back by then."""
    when, period = _made_at(line), _period_of(line)
    earlier = InvoiceLine.objects.filter(_lines_before(line))
    billed = earlier.aggregate(all=Sum("amount"))["all"] or ZERO
    ignored = IgnoredCorrection.objects.filter(period=period, charge=line.charge_id, found_at__lte=when).aggregate(
        all=Sum("amount")
    )["all"]
    back = CreditNoteLine.objects.filter(
        credit_note__cause=CreditNoteCause.CORRECTION, credit_note__issued_at__lte=when, invoice_line__in=earlier
    ).aggregate(all=Sum("amount"))["all"]
    return add(billed, ignored or ZERO, -(back or ZERO))


def _given_back_with(line: InvoiceLine) -> Decimal:
    """What credit notes gave back of the same difference, of which the line is the rest."""
    if line.amount >= 0:
        return ZERO
    earlier = InvoiceLine.objects.filter(_lines_before(line))
    same = CreditNoteLine.objects.filter(
        credit_note__cause=CreditNoteCause.CORRECTION,
        credit_note__issued_at=_made_at(line),
        invoice_line__in=earlier,
    ).aggregate(all=Sum("amount"))["all"]
    return same or ZERO


def _never_began(line: InvoiceLine) -> bool:
    """Whether the line takes back what was billed early of a period that a cancellation kept from beginning."""
    if line.kind != LineKind.ADJUSTMENT or "should_amount" in line.explanation:
        return False
    return _period_of(line) is None


def _take_back_again(line: InvoiceLine) -> _Rated:
    """All that stood of it when the line was made: what was billed, less what was credited."""
    stood = Q(live=True) | Q(invoice__voided_at__gt=line.invoice.created_at)
    earlier = InvoiceLine.objects.filter(_lines_before(line)).filter(stood)
    billed = earlier.aggregate(all=Sum("amount"))["all"] or ZERO
    credited = CreditNoteLine.objects.filter(invoice_line__in=earlier, credit_note__issued_at__lte=_made_at(line))
    back = credited.aggregate(all=Sum("amount"))["all"] or ZERO
    if line.amount != (again := add(back, -billed)):
        return _Rated((Difference("amount", _money(line.amount, line), _money(again, line)),))
    return _Rated()


def _made_at(line: InvoiceLine) -> datetime:
    return line.invoice.issued_at or line.invoice.created_at


def _rate_fee_again(line: InvoiceLine) -> _Rated:
    period = _period_of(line)
    assert line.subscription is not None, "a fee has its subscription"  # noqa: S101
    subscription = copy.copy(line.subscription)
    # How many were bought then.
    subscription.quantity = int(line.quantity)
    try:
        found = fee_period(subscription, period) if period is not None else None
    except ValueError as error:
        return _Rated(unproved=str(error))
    if found is None or (found[0].start, found[0].end) != (line.period_start, line.period_end):
        # The subscription was moved to another price or date since; what is left is the line's own arithmetic.
        return _rate_once(line)
    again = fee_line(subscription, *found, known_at=_made_at(line))
    if again.unit_price != line.unit_price:
        return _rate_once(line)
    return _Rated(tuple(_compare(line, again)))


def _rate_once(line: InvoiceLine) -> _Rated:
    """A line of its own: quantity times price, less the discount, rounded once."""
    if line.unit_price is None or line.explanation.get("fraction") not in (None, "1") or line.discount:
        return _Rated()
    again = rate_fee(quantity=line.billable_units, fee=line.unit_price)
    if again.amount != line.amount:
        return _Rated((Difference("amount", _money(line.amount, line), _money(again.amount, line)),))
    return _Rated()


def _number(stored: object) -> Decimal:
    """A number out of an explanation; 0 where somebody made it something else, which then shows as a difference."""
    try:
        number = Decimal(str(stored))
    except ArithmeticError:
        return ZERO
    return number if number.is_finite() else ZERO


def _figure(number: Decimal | None) -> str:
    return "none" if number is None else plain(number)


def _money(amount: Decimal, line: InvoiceLine) -> str:
    return format_amount(amount, line.invoice.currency)


# -- the sums ------------------------------------------------------------------------------------------------


def _check_line(line: InvoiceLine) -> Iterator[Difference]:
    """What a line adds to the total, from its own columns."""
    tax = add(*(_number(one["amount"]) for one in line.taxes))
    if tax != line.tax:
        yield Difference("tax", _money(line.tax, line), _money(tax, line))
    total = add(line.amount, -line.credit, ZERO if line.tax_inclusive else line.tax)
    if total != line.total:
        yield Difference("total", _money(line.total, line), _money(total, line))


def _check_sums(invoice: Invoice, lines: Sequence[InvoiceLine]) -> Iterator[Difference]:
    def differs(what: str, printed: Decimal, found: Decimal) -> Iterator[Difference]:
        if printed != found:
            yield Difference(what, format_amount(printed, invoice.currency), format_amount(found, invoice.currency))

    yield from differs("subtotal", invoice.subtotal, add(*(line.amount for line in lines)))
    yield from differs("prepaid credit", invoice.credit, add(*(line.credit for line in lines)))
    yield from differs("tax", invoice.tax, add(*(line.tax for line in lines)))
    yield from differs("total", invoice.total, add(*(line.total for line in lines)))
    yield from differs("due", invoice.due, add(invoice.total, -invoice.balance))
    yield from _check_tax(invoice, lines)
    if invoice.status == InvoiceStatus.DRAFT:
        return
    drawn = GrantEntry.objects.filter(invoice=invoice, kind=GrantEntryKind.DRAWN).aggregate(all=Sum("amount"))["all"]
    yield from differs("prepaid credit drawn", invoice.credit, -(drawn or ZERO))
    moved = BalanceEntry.objects.filter(
        invoice=invoice, kind__in=[BalanceEntryKind.INVOICE_PAID, BalanceEntryKind.INVOICE_CREDIT]
    ).aggregate(all=Sum("amount"))["all"]
    yield from differs("paid from the balance", invoice.balance, -(moved or ZERO))
    for note in invoice.credit_notes.prefetch_related("lines"):
        yield from _check_note(note, invoice)


def _check_tax(invoice: Invoice, lines: Sequence[InvoiceLine]) -> Iterator[Difference]:
    """The tax of every line by its printed rates, on what is left after its prepaid credit."""
    price = next((line.subscription.price for line in lines if line.subscription is not None), None)
    conventions = settling_conventions(price, tax_inclusive=any(line.tax_inclusive for line in lines))
    after_tax = conventions.credit == "after_tax"
    settled = settle(
        [
            LineToSettle(
                key=str(line.pk),
                amount=line.amount if after_tax else add(line.amount, -line.credit),
                taxes=tuple(Tax(one["name"], _number(one["percent"])) for one in line.taxes),
                tax_inclusive=line.tax_inclusive,
            )
            for line in lines
        ],
        conventions=conventions,
    )
    for line, again in zip(lines, settled.lines, strict=True):
        if line.tax != again.tax:
            yield Difference(f"tax of line {line.position}", _money(line.tax, line), _money(again.tax, line))


def _check_note(note: CreditNote, invoice: Invoice) -> Iterator[Difference]:
    """A credit note's own sums; of a correction, that it gives back what was billed too much and no more."""
    lines = list(note.lines.all())
    for what, printed, found in (
        ("subtotal", note.subtotal, add(*(line.amount for line in lines))),
        ("prepaid credit", note.credit, add(*(line.credit for line in lines))),
        ("tax", note.tax, add(*(line.tax for line in lines))),
        ("total", note.total, add(*(line.total for line in lines))),
        ("total", note.total, add(note.to_invoice, note.to_balance)),
    ):
        if printed != found:
            yield Difference(
                f"{what} of credit note {note}",
                format_amount(printed, invoice.currency),
                format_amount(found, invoice.currency),
            )
    if note.cause != CreditNoteCause.CORRECTION:
        return
    for line in lines:
        told = line.explanation
        if "should_amount" in told and "billed_amount" in told:
            too_much = add(_number(told["billed_amount"]), -_number(told["should_amount"]))
            if line.amount > too_much:
                yield Difference(
                    f"given back by credit note {note}",
                    format_amount(line.amount, invoice.currency),
                    f"{format_amount(too_much, invoice.currency)} billed too much",
                )

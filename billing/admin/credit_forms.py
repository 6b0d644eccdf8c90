"""What a credit note asks: all that is left, chosen lines, or an amount; and what it would give back."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.core.exceptions import ValidationError

from billing.credit_notes import LineLeft, ProposedCredit, propose_credit
from billing.money import format_amount, plain, to_minor
from customers.admin.base import CommandForm
from customers.admin.forms import MajorAmountField, check_major_digits, choice, long_text

WHOLE, LINES, AMOUNT = "whole", "lines", "amount"


@dataclass(frozen=True, slots=True)
class Preview:
    """A proposed credit note in words, and what it is known by when it is confirmed."""

    rows: tuple[tuple[str, str, str, str, str], ...]
    sums: tuple[tuple[str, str], ...]
    known_by: str


class CreditForm(CommandForm):
    """Amounts are typed in the currency's major unit, with tax and before prepaid credit."""

    how = choice(
        "How",
        [(WHOLE, "All that is left"), (LINES, "Amounts by line"), (AMOUNT, "One amount over all lines")],
    )
    reason = long_text(
        "Why", required=True, help_text="Stands on the credit note; the customer reads it.", max_length=2000
    )

    def __init__(self, data: Any = None, *, left: Sequence[LineLeft], **kwargs: Any) -> None:
        super().__init__(data, **kwargs)
        self.left = left
        self.currency = self.obj.currency
        self.fields["amount"] = self._amount("Amount", "With tax; spread over the lines by what is left of each.")
        for one in left:
            known = f"{self._money(one.left)} is left" + (
                "" if not one.given else f" of {self._money(one.printed.worth)}"
            )
            self.fields[f"line_{one.line.pk}"] = self._amount(one.line.description, f"{known}, with tax.")
        self.order_fields(["how", "amount", *(f"line_{one.line.pk}" for one in left), "reason"])

    def _amount(self, label: str, help_text: str) -> MajorAmountField:
        field = MajorAmountField(label=label, required=False, help_text=help_text, max_digits=30)
        field.mb_affix = self.currency
        return field

    def _money(self, minor: Decimal) -> str:
        return format_amount(minor, self.currency)

    @property
    def line_fields(self) -> list[Any]:
        return [self[f"line_{one.line.pk}"] for one in self.left]

    def clean(self) -> dict[str, Any]:
        found: dict[str, Any] = super().clean() or self.cleaned_data
        named = {"amount": AMOUNT, **{f"line_{one.line.pk}": LINES for one in self.left}}
        for name, belongs_to in named.items():
            typed = found.get(name)
            if typed is None:
                continue
            if belongs_to != found.get("how"):
                # Left out without a word, it would look as if it had counted.
                self.add_error(name, "This does not count with what you chose above: empty it, or choose the other.")
            elif typed <= 0:
                self.add_error(name, "Enter more than zero; leave it empty to credit nothing.")
            elif wrong := check_major_digits(typed, self.currency, digits=0):
                self.add_error(name, wrong)
        if found.get("how") == AMOUNT and found.get("amount") is None and "amount" not in self.errors:
            self.add_error("amount", "How much?")
        if found.get("how") == LINES and not self.errors and not self._typed():
            raise ValidationError("Type an amount for at least one line.")
        return found

    def _typed(self) -> dict[int, Decimal]:
        """By line's key, in minor units."""
        typed = {one.line.pk: self.cleaned_data.get(f"line_{one.line.pk}") for one in self.left}
        return {key: to_minor(amount, self.currency) for key, amount in typed.items() if amount is not None}

    def what(self) -> dict[str, Any]:
        """As `propose_credit` and `credit_invoice` take it."""
        how = self.cleaned_data["how"]
        if how == LINES:
            return {"lines": self._typed()}
        return {"amount": to_minor(self.cleaned_data["amount"], self.currency)} if how == AMOUNT else {}

    def proposed(self) -> ProposedCredit:
        return propose_credit(invoice=self.obj, **self.what())

    def is_confirmed(self, proposed: ProposedCredit) -> bool:
        """Whether what is asked for is what was shown before: somebody may have credited or paid in between."""
        return "confirm" in self.data and self.data["confirm"] == _known_by(proposed)

    def preview(self, proposed: ProposedCredit) -> Preview:
        return Preview(
            rows=tuple(
                (
                    one.line.description,
                    self._money(part.amount),
                    self._money(-part.credit) if part.credit else "–",
                    self._money(part.tax) if part.tax else "–",
                    self._money(part.total),
                )
                for one, part in proposed.parts
            ),
            sums=tuple(self._sums(proposed)),
            known_by=_known_by(proposed),
        )

    def _sums(self, proposed: ProposedCredit) -> Any:
        yield "Given back in money", self._money(proposed.total)
        if proposed.to_invoice:
            yield f"Taken off what {self.obj} asks for", self._money(proposed.to_invoice)
            yield f"Then {self.obj} asks for", self._money(proposed.owed)
        if proposed.to_balance:
            yield "Put onto the customer's balance", self._money(proposed.to_balance)
        if proposed.credit:
            yield "Prepaid credit that goes back to its grants", self._money(proposed.credit)


def _known_by(proposed: ProposedCredit) -> str:
    parts = [f"{one.line.pk}:{plain(one.given)}:{plain(part.worth)}" for one, part in proposed.parts]
    return " ".join([*parts, plain(proposed.to_invoice), plain(proposed.owed)])

"""What an amount means: its currency, and what becomes of refunds and of nothing at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import nan
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.arrays import Floats
from detector.errors import DataError, SettingError, nearest

Mixed = Literal["refuse", "convert", "apart"]
Unusual = Literal["keep", "skip", "refuse"]


@dataclass(frozen=True)
class Money:
    """The column that holds amounts, and its rules.

    Parameters
    ----------
    column : str
        The amounts.
    currency : str, optional
        The column that names their currency; without one all are in one currency.
    mixed : str
        What to do where there are several: ``refuse`` rows that are not in the first of ``rates``, ``convert`` by
        ``rates``, or keep them ``apart``: then an amount is compared with amounts of its own currency only.
    rates : mapping of str to float
        What one of each currency is worth in the one that features are in.
    negative, zero : str
        Refunds and reversals, and amounts of nothing (checks of a card): ``keep`` them as they are, ``skip`` the
        amount while the event counts, or ``refuse`` the row.

    Raises
    ------
    SettingError
        If a rule is unknown, or currencies are to be converted without rates.

    >>> Money("amount", negative="skip").read(pd.DataFrame({"amount": [5.0, -2.0]}))
    array([ 5., nan])
    """

    column: str = "amount"
    currency: str | None = None
    mixed: Mixed = "refuse"
    rates: Mapping[str, float] = field(default_factory=dict)
    negative: Unusual = "keep"
    zero: Unusual = "keep"

    def __post_init__(self) -> None:
        for name, known in (("mixed", Mixed), ("negative", Unusual), ("zero", Unusual)):
            if getattr(self, name) not in get_args(known):
                raise SettingError(
                    f"{name} knows no {getattr(self, name)!r}. {nearest(getattr(self, name), get_args(known))}"
                )
        if self.currency is not None and self.mixed == "convert" and not self.rates:
            raise SettingError("Currencies are to be converted, but no rate is given. Give rates, such as {EUR: 1}.")
        if any(not (rate > 0 and np.isfinite(rate)) for rate in self.rates.values()):
            raise SettingError(f"A rate must be a positive number. Received: {dict(self.rates)}.")

    @property
    def apart_by(self) -> tuple[str, ...]:
        """The column by which amounts are kept apart, if so."""
        return (self.currency,) if self.currency is not None and self.mixed == "apart" else ()

    @property
    def is_in_one(self) -> bool:
        """Whether amounts count as they are, as there is one currency, or each has its own past."""
        return self.currency is None or self.mixed == "apart"

    def takes_one(self, row: Mapping[str, Any]) -> bool:
        """Whether nothing is wrong with the amount of one row, as far as that can be said without others."""
        amount = row[self.column]
        refused = (amount < 0 and self.negative == "refuse") or (amount == 0 and self.zero == "refuse")
        return self.is_in_one and not refused

    def read(self, rows: pd.DataFrame) -> Floats:
        """Amounts in one currency, NaN where missing or skipped.

        Raises
        ------
        DataError
            If there are several currencies, one has no rate, or an amount is refused.
        """
        reasons = self.faults(rows)
        bad = np.flatnonzero(reasons != "")
        if len(bad):
            raise DataError(f"{reasons[bad[0]]} (row {rows.index[bad[0]]}).")
        amounts = rows[self.column].to_numpy(dtype=np.float64, na_value=np.nan)
        if self.currency is not None and self.mixed == "convert":
            amounts = amounts * rows[self.currency].map(dict(self.rates)).to_numpy(dtype=np.float64, na_value=np.nan)
        for chosen, where in ((self.negative, amounts < 0), (self.zero, amounts == 0)):
            if chosen == "skip":
                amounts = np.where(where, np.nan, amounts)
        return np.asarray(amounts)

    def read_one(self, row: Mapping[str, Any]) -> float:
        """The amount of one row, by the same rules.

        >>> Money("amount", negative="skip").read_one({"amount": -2.0})
        nan
        """
        amount = row[self.column]
        if self.is_in_one and isinstance(amount, int | float):
            rule = "keep" if amount > 0 or amount != amount else self.negative if amount < 0 else self.zero
            if rule != "refuse":
                return float(amount) if rule == "keep" else nan
        names = [self.column] if self.currency is None else [self.column, self.currency]
        return float(self.read(pd.DataFrame({name: [row[name]] for name in names}))[0])

    def faults(self, rows: pd.DataFrame) -> NDArray[np.object_]:
        """Why each row cannot be used; empty text where it can."""
        reasons = np.full(len(rows), "", dtype=object)
        amounts = rows[self.column].to_numpy(dtype=np.float64, na_value=np.nan)
        for chosen, where, what in ((self.negative, amounts < 0, "negative"), (self.zero, amounts == 0, "zero")):
            if chosen == "refuse":
                reasons[where] = f"{self.column}: the amount is {what}, and `{what}` is set to refuse"
        if self.currency is not None and self.mixed != "apart":
            names = rows[self.currency]
            known = list(self.rates) or list(names.dropna().unique()[:1])
            accepted = known if self.mixed == "convert" else known[:1]
            for row in np.flatnonzero(~names.isin(accepted).to_numpy() & ~np.isnan(amounts)):
                reasons[row] = (
                    f"{self.currency}: {names.iloc[row]!r} is not {' or '.join(map(repr, accepted))}; give its rate "
                    f"and `mixed: convert`, or keep currencies apart"
                )
        return reasons

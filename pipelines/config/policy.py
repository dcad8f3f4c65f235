"""The part of the configuration about deciding: which rows are flagged."""

from __future__ import annotations

from math import ceil
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from pipelines.config.values import Section, Share


class BudgetSection(Section):
    """How many rows people can look at."""

    rows: PositiveInt
    """Most rows to flag."""

    per: Literal["batch", "day"] = "day"
    """In one run (batch), or on each day of the time column (day)."""


class PolicySection(Section):
    """Which rows are flagged. Of several rules, all must agree: a cap and a floor."""

    fdr: Share | None = None
    """False discovery rate: the share of false alarms among the flagged rows (Benjamini-Hochberg)."""

    quantile: Share | None = None
    """Flag rows riskier than this share of normal rows, such as 0.999."""

    explore: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the budget kept for rows sampled at random, whatever their risk: they show how much is missed."""

    rows_a_day: PositiveInt | None = None
    """About how many rows come a day; needed to explore with a budget a day, for the chance of each row."""

    budget: BudgetSection | None = None
    """Flag at most so many rows, the riskiest first."""

    @model_validator(mode="after")
    def _some_rule(self) -> Self:
        if self.fdr is None and self.quantile is None and self.budget is None:
            raise ValueError("expected `fdr`, `quantile` or `budget`, or several; without any, nothing decides.")
        return self

    @model_validator(mode="after")
    def _room_to_explore(self) -> Self:
        if not self.explore:
            return self
        if self.budget is None or self.budget.rows <= self.explored:
            raise ValueError(
                "`explore` expected a `budget` that is larger than what is drawn. Set `budget.rows`, such as 50."
            )
        if self.budget.per == "day" and self.rows_a_day is None:
            raise ValueError(
                "`explore` with a budget a day expected `rows_a_day`, to know the chance of each row. Give it about, "
                "or set `per: batch` in the budget."
            )
        return self

    @property
    def explored(self) -> int:
        """How many rows of the budget are for those drawn at random."""
        return 0 if self.budget is None else ceil(round(self.explore * self.budget.rows, 9))

"""The configuration that ``detector init`` writes: what it proposes as YAML, each line with its reason."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines.config import SourceSection
from pipelines.config.formats import FormatSection
from pipelines.doctor.proposal import WAIT, Proposal

ENOUGH = 1_200
"""Rows that tell a reading in a thousand apart: nine tenths of them calibrate."""
ENOUGH_OWN, MOST_OWN = 2_000, 10
"""Rows of a machine from which a model of its own learns enough, and machines whose models are trained in minutes."""
ROLES = ("key", "time", "entity", "label")
PASTS = (30, 7, 1)
SLOW = 7
"""Rows of an entity that are more days apart are compared and counted over a longer window."""
LONG_PASTS = (350, 195, 105, 45, 7, 1)
"""Between months: 90 days hold two monthly bills or three, by the month, and 105 always three."""
LEAST_IN_A_PAST = 3
"""So many rows of an entity a long window holds, in the mean."""
USUAL_SHARE, LEAST_SHARE = 4, 2
"""A window is proposed where the rows reach so many times as far: of its length, the first rows are not learnt from."""
KINDS = ("numeric", "categorical", "boolean", "datetime", "ignore")


@dataclass(frozen=True)
class Written:
    """How a file is written, where it is not the usual way."""

    encoding: str = "utf-8"
    header: int = 1

    def section(self, file: Path) -> SourceSection:
        """What a configuration says of it."""
        return SourceSection(path=str(file), encoding=self.encoding, header=None if self.header == 1 else self.header)


def as_yaml(found: Proposal, path: str, *, name: str, rows: int, total: int, days: float, how: Written) -> str:
    """The configuration as text, each line with its reason; the whole source has ``total`` rows, over ``days``."""
    lines = [*_lines(found, path, name, rows, days, how), *_series(found, total), "", "policy:", *_policy(found, total)]
    return "\n".join([*lines, "", "output:", "  path: scores.parquet"]) + "\n"


def _lines(found: Proposal, path: str, name: str, rows: int, days: float, how: Written) -> Iterator[str]:
    yield f"# Proposed by `detector init` after a look at {rows:,} rows. Correct what it got wrong; every setting is in"
    yield "# docs/configuration.md, and `detector doctor` checks this file against the rows."
    yield f"name: {_scalar(name)}"
    if found.kind == "sensors":
        yield _noted("kind: sensors", found.why)
    yield from ("", "source:", f"  path: {_scalar(path)}")
    if how.header > 1:
        yield _noted(f"  header: {how.header}", "the line that names the columns")
    if how.encoding != "utf-8":
        yield _noted(f"  encoding: {how.encoding}", "it is not utf-8")
    if forms := [(choice, choice.form) for choice in found.choices if choice.form is not None]:
        yield "  formats:"
        same = [form for _, form in forms if form.missing]
        for choice, form in forms:
            anchor = "" if len(same) <= 1 else "&missing " if form is same[0] else "*missing"
            yield _noted(f"    {_scalar(choice.column)}: {{{_given(form, anchor)}}}", choice.check)
    yield from ("", "columns:")
    for role in ROLES:
        for choice in found.named(role):
            yield _noted(f"  {role}: {_scalar(choice.column)}", choice.why)
    if found.entity_from is not None:
        yield _noted("  entity: machine", "files of the same time: each is of one")
        yield f"  entity_from: {found.entity_from}"
    for kind in KINDS:
        if choices := found.named(kind):
            yield f"  {kind}:"
            yield from (_noted(f"  - {_scalar(choice.column)}", choice.why) for choice in choices)
    yield from _names(found)
    yield from _features(found, days)


def _given(form: FormatSection, anchor: str) -> str:
    """What a form says, as YAML; words for a missing value are written once, and referred to by an ``anchor``."""
    said = {what: _scalar(value) for what, value in form.model_dump(exclude_defaults=True).items() if what != "missing"}
    if form.missing:
        words = f"[{', '.join(map(_scalar, form.missing))}]"
        said["missing"] = anchor if anchor.startswith("*") else f"{anchor}{words}"
    return ", ".join(f"{what}: {text}" for what, text in said.items())


def _policy(found: Proposal, total: int) -> Iterator[str]:
    """What is flagged; ``total`` rows are there to learn from."""
    if found.kind == "table":  # a stricter quantile flags next to nothing where one training row in a hundred is odd
        per = "day" if found.role("time") else "batch"
        yield _noted("  quantile: 0.99", "flag what is rarer than one normal row in a hundred")
        yield _noted(f"  budget: {{rows: 20, per: {per}}}", "and never more than people can look at")
    elif total >= ENOUGH * (found.machines if _has_own_models(found, total) else 1):
        yield _noted("  quantile: 0.999", "flag what is rarer than one normal reading in a thousand")
    else:
        yield _noted("  quantile: 0.99", "one in a hundred: so few rows tell no rarer ones apart; with more, 0.999")


def _names(found: Proposal) -> Iterator[str]:
    called = {name: {"name": f"{name} (added)"} for name in found.counters}
    for name, unit in found.units.items():
        called[name] = called.get(name, {}) | {"unit": unit}
    if called:
        yield _noted("  names:", "what reasons call them")
    for name, given in called.items():
        yield f"    {_scalar(name)}: {{{', '.join(f'{what}: {_scalar(value)}' for what, value in given.items())}}}"


def _past(days: float, pace: float) -> str:
    """How far back to look: rows whose past is shorter than the window are not learnt from.

    >>> _past(365, 2), _past(39, 2), _past(8, 2), _past(1_095, 30), _past(334, 30)
    ('30d', '7d', '1d', '105d', '105d')
    """
    pasts, share = (LONG_PASTS, LEAST_SHARE) if pace > SLOW else (PASTS, USUAL_SHARE)
    fitting = [past for past in pasts if past * share <= days] or [pasts[-1]]
    enough = [past for past in fitting if past >= LEAST_IN_A_PAST * pace] if pace > SLOW else []
    return f"{min(enough, default=fitting[0])}d"


def _features(found: Proposal, days: float) -> Iterator[str]:
    entity, amount = found.role("entity"), found.amount
    if found.kind != "table" or not found.role("time") or not entity:
        return
    yield from ("", _noted("features:", "beside the entity's own past; docs/features.md has more"), "  history:")
    past = _past(days, found.pace)
    counts = ["1d", "7d"] if found.dated else ["1h", "1d"]
    windows = ", ".join([*counts, past] if found.pace > SLOW and past not in ("1d", "7d") else counts)
    for name in (entity, *found.counted):
        yield f"  - {_scalar(f'count by {_quoted(name)} over {windows}')}"
    for name in found.accounts:
        yield f"  - {_scalar(f'new of {_quoted(name)} by {_quoted(entity)} over {past}')}"
    if found.place is not None and not found.dated:
        where = ", ".join(map(_quoted, found.place))
        yield f"  - {_scalar(f'speed of {where} by {_quoted(entity)} over 1d')}"
    if amount:
        yield f"  - {_scalar(f'ratio of {_quoted(amount)} by {_quoted(entity)} over {past}')}"
    if amount and found.currency:
        yield _noted(
            f"  - {_scalar(f'ratio of {_quoted(amount)} by {_quoted(found.currency)} over {past}')}",
            "how much it is in its currency",
        )
    if amount and amount != "amount":
        yield f"  amount: {_scalar(amount)}"
    if amount and found.currency:
        yield f"  currency: {_scalar(found.currency)}"
        yield _noted("  mixed: apart", "amounts are compared within each currency only")


def _has_own_models(found: Proposal, total: int) -> bool:
    """Whether each machine is learnt by itself: none is like another, or each has rows enough."""
    return found.apart or (1 < found.machines <= MOST_OWN and total >= ENOUGH_OWN * found.machines)


def _series(found: Proposal, total: int) -> Iterator[str]:
    if found.kind != "sensors":
        return
    yield from ("", "series:")
    if found.apart:
        yield _noted("  models: entity", "one model for each sensor, as none is like another")
    elif _has_own_models(found, total):
        each = "one for each machine; `shared`: one for all, also for those to come, which must be alike"
        yield _noted("  models: entity", each)
    elif found.role("entity") or found.entity_from:
        yield _noted("  models: shared", "one model for all machines, which must be alike; else `entity`: one for each")
    if found.is_slow:
        yield _noted("  trailing: true", f"a score waits for no reading; without it for {found.waits}")
    else:
        yield _noted(f"  wait: {WAIT}", f"a score waits for {found.waits} readings; `trailing: true` waits for none")
    if found.sampled is not None or found.counters:
        yield "  sampling:"
    if (steps := found.sampled) is not None:
        yield "    # readings come when something changes: each step holds the last one, for `limit` steps at most"
        yield from (
            f"    every: {steps.every}",
            "    align: last",
            "    missing: previous",
            f"    limit: {steps.limit}",
        )
    if found.counters:
        names = ", ".join(_scalar(name) for name in found.counters)
        yield _noted(f"    counters: [{names}]", "what they add from reading to reading is looked at")


def _noted(line: str, note: str) -> str:
    return f"{line:<28} # {note}" if note else line


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"\w+", name) else f'"{name}"'


def _scalar(value: object) -> str:
    """A value as YAML: plain where nothing can be misread, else as JSON, which is YAML too."""
    text = str(value)
    plain = re.fullmatch(r"[A-Za-z_./-][\w ./-]*", text) and text.lower() not in _WORDS and text == text.strip()
    return text if plain else json.dumps(text, ensure_ascii=False)


_WORDS = {"true", "false", "yes", "no", "on", "off", "null", "none", "y", "n", "~", ".inf", ".nan", "-"}

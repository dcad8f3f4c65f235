"""Look at everything a configuration names, and say all that is wrong in one go."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pandas as pd

from detector.errors import MissingExtraError, SettingError, SourceError, nearest
from pipelines.config import Config
from pipelines.doctor.check import Check, State, as_summary, as_table
from pipelines.doctor.columns import check_columns
from pipelines.doctor.counters import check_counters
from pipelines.doctor.features import check_features
from pipelines.doctor.first_run import check_first_run
from pipelines.doctor.formats import MANY_LOST
from pipelines.doctor.likeness import check_likeness
from pipelines.doctor.narrow_sensors import check_narrow_sensors
from pipelines.doctor.places import check_bundle, check_header, check_output, check_secrets, check_tracking
from pipelines.doctor.repeats import SCAN_ROWS, check_repeats
from pipelines.doctor.rules import check_rules
from pipelines.doctor.training import check_labels, check_training
from pipelines.doctor.unit_line import units_of
from pipelines.factory.kinds import KINDS
from pipelines.factory.machines import some_machines
from pipelines.progress import counted, progress
from pipelines.sources import Source, open_source

__all__ = ["Check", "State", "as_summary", "as_table", "examine"]

SAMPLE_ROWS = 50_000
FEW_ROWS = 500


def examine(config: Config, *, rows: int = SAMPLE_ROWS, now: datetime | None = None) -> list[Check]:
    """Check every path, column and connection.

    - ``rows``: how many rows to look at: drawn from all where there are at most two million, else the first.
    - ``now``: labels count as known or not at this moment; by the clock by default.

    The checks are in the order of the configuration. What is wrong is not raised, and nothing is written.
    """
    now = now or datetime.now(UTC)
    checks = list(check_header(config.source))
    frame: pd.DataFrame | None = None
    total: int | None = None
    try:
        source = open_source(config.source)
        total = source.estimate()
        frame = _look(source, config, rows, total)
        was_read = total is not None and len(frame) < rows and KINDS[config.kind].rows_stand_alone
        total = len(frame) if was_read else total
        checks.extend(_source(source, frame, total, exact=was_read or source.count() is not None))
    except (SourceError, SettingError, MissingExtraError) as error:
        place = next(name for name in ("path", "url", "topic") if getattr(config.source, name) is not None)
        checks.append(Check(f"source.{place}", "problem", str(error), "Correct it; the columns could not be checked."))
    if frame is not None:
        checks.extend(_formats(config, frame))
        if units_of(frame):
            found = "the first row holds units and no values"
            checks.append(Check("source", "warning", found, "It will go to the quarantine, of every file."))
            frame = frame.iloc[1:]
        checks.extend(check_columns(config.columns, frame, skips=config.skips_repeated_rows))
        checks.extend(check_counters(config, frame))
        checks.extend(check_likeness(config, frame))
        checks.extend(check_narrow_sensors(config, frame))
        checks.extend(check_features(config, frame, is_all=len(frame) == total))
        checks.extend(check_labels(config, frame, now=now))
        checks.extend(check_training(config, source, frame))
        checks.extend(check_first_run(config, frame, now=now))
        checks.extend(check_repeats(config))
        checks.extend(check_rules(config, frame))
    checks.extend(_policy(config, total))
    checks.extend(check_output(config))
    checks.append(check_bundle(config))
    checks.append(check_tracking(config))
    checks.extend(check_secrets(config.alerts))
    return checks


def _look(source: Source, config: Config, rows: int, total: int | None) -> pd.DataFrame:
    """Some rows: of all if that is quick, else the first; of series those that training reads."""
    if total is None or total > SCAN_ROWS:
        return source.read(limit=rows)
    kind = KINDS[config.kind]
    with progress("Reading", total=total) as advance:
        if not kind.rows_stand_alone:
            return kind.read(some_machines(source, config), config, advance)
        return source.sample(rows, advance=advance)


def _source(source: Source, frame: pd.DataFrame, total: int | None, *, exact: bool) -> Iterator[Check]:
    rows = "" if total is None else f", {'' if exact else 'about '}{counted(total)}"
    looked = f"; {len(frame):,} of them looked at" if total is not None and len(frame) < total else ""
    yield Check("source", "ok", f"{source.describe()}: {counted(len(frame.columns), 'column')}{rows}{looked}")
    rejected = source.rejected["reason"]
    if len(rejected):
        found = f"{counted(len(rejected), 'line')} cannot be read as rows. {rejected.iloc[0]}"
        state: State = "problem" if len(rejected) > MANY_LOST * (len(rejected) + (total or len(frame))) else "warning"
        yield Check(
            "source", state, found, "They will go to the quarantine. In CSV, quote fields that hold the separator."
        )
    if len(frame) < FEW_ROWS:
        found = f"only {counted(len(frame))}"
        yield Check("source", "warning", found, f"Learning what is normal takes {FEW_ROWS} rows or more.")


def _formats(config: Config, frame: pd.DataFrame) -> Iterator[Check]:
    present = [str(name) for name in frame.columns]
    for name, form in config.source.complete_formats.items():
        if name not in present:
            yield Check("source.formats", "problem", f"there is no column {name!r}", nearest(name, present))
        else:
            gone = f", and {', '.join(form.missing)} as missing" if form.missing else ""
            yield Check("source.formats", "ok", f"{name!r} is read {form.describe()}{gone}")


def _policy(config: Config, total: int | None) -> Iterator[Check]:
    policy, train = config.policy, config.train
    rules = [
        *([f"fdr {policy.fdr:g}"] if policy.fdr is not None else []),
        *([f"quantile {policy.quantile:g}"] if policy.quantile is not None else []),
        *([f"budget of {policy.budget.rows:,} rows a {policy.budget.per}"] if policy.budget else []),
    ]
    yield Check("policy", "ok", " and ".join(rules))
    if policy.budget is not None and policy.budget.per == "day" and config.columns.time is None:
        found = "a budget a day needs the time of each row"
        yield Check("policy.budget.per", "problem", found, "Set `columns.time`, or `per: batch`.")
    if total is None:
        return
    learned = total if train.rows is None else min(total, train.rows)
    smallest = 1 / (round(learned * (1 - train.review_share)) + 1)  # every row that is learnt from calibrates, too
    if policy.quantile is not None and 1 - policy.quantile < smallest:
        found = f"with {learned:,} rows to learn from, no quantile above {1 - smallest:.6g} can be told apart"
        yield Check("policy.quantile", "warning", found, "Lower it, or learn from more rows: `train.rows`.")

"""Whether the rules fit the columns that a detector would have, and their lists can be read."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from detector.errors import DetectorError
from pipelines.config import Config
from pipelines.doctor.check import Check
from pipelines.factory.kinds import KINDS
from pipelines.features.engine import feature_engine_of
from pipelines.progress import counted
from pipelines.rules.checked import problems_of
from pipelines.rules.lists import read_list


def check_rules(config: Config, frame: pd.DataFrame) -> Iterator[Check]:
    """Each rule of the configuration that cannot be read or names no column, and each list that cannot be read."""
    for name in config.lists:
        try:
            yield Check("lists", "ok", f"{name!r}: {counted(len(read_list(config, name)), 'value')}")
        except DetectorError as error:
            yield Check("lists", "problem", str(error), "Rules that use it would be switched off.")
    if not config.rules:
        return
    try:
        schema, engine = KINDS[config.kind].schema(frame, config), feature_engine_of(config, trained=False)
        problems = problems_of(config, config.rules, schema if engine is None else engine.schema(schema))
    except DetectorError as error:
        yield Check("rules", "warning", f"could not be checked: {error}", "Correct that first.")
        return
    for name, problem in problems.items():
        advice = "Correct it: `detector score` refuses it, and the service switches it off."
        yield Check("rules", "problem", f"{name!r}: {problem}", advice)
    if fitting := len(config.rules) - len(problems):
        yield Check("rules", "ok", f"{counted(fitting, 'rule')} can be read, with columns that are there")

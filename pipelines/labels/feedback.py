"""What reports and answers to alerts say of rows, when each was said, and what a row was therefore known to be.

The one place where statements meet rows: features and the head both take them from here.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import pandas as pd
import sqlalchemy as sa

from detector.cleaning.values import naive_utc, read_dates, read_names
from detector.errors import SchemaError, nearest
from detector.metrics.ranking import read_labels
from pipelines.config import Config
from pipelines.config.features import TURNS
from pipelines.config.masking import Masks, masks_of
from pipelines.sources import NoRowsError, open_source
from pipelines.store import existing_store
from pipelines.store.alert_tables import Alert, Answer

SAID = {"fraud": 1.0, "fine": 0.0, "unsure": np.nan}
MOMENT = "datetime64[us]"


@dataclass(frozen=True)
class Statements:
    """All that was ever said of rows by reports and by answers to alerts.

    Parameters
    ----------
    reports, verdicts : DataFrame
        A line a statement and row, in the order they were made: ``key`` as text (of verdicts as alerts show it),
        ``label`` (1 fraud, 0 not, missing unsure) and ``known_at``, without time zone, in UTC.
    key : str or None
        The column that names rows.
    masks : Masks
        How alerts show it.
    """

    reports: pd.DataFrame
    verdicts: pd.DataFrame
    key: str | None = None
    masks: Masks = field(default_factory=Masks)

    @classmethod
    def none(cls) -> Self:
        """Nothing was ever said."""
        return cls(_nothing(), _nothing())

    @classmethod
    def read(cls, config: Config) -> Self:
        """What is there at this moment; nothing where rows have no key.

        Raises
        ------
        SourceError
            If the reports cannot be read.
        SchemaError
            If they lack a column.
        """
        if config.columns.key is None:
            return cls.none()
        return cls(_reports(config), _verdicts(config), config.columns.key, masks_of(config))

    def about(self, keys: pd.Series) -> dict[str, pd.DataFrame]:
        """The statements about rows of these keys, by their kind: ``row`` (a position), ``label`` and ``known_at``.

        A verdict tells of a row only by a key that alerts show as it is or hashed: cut to its last signs or hidden it
        may be that of any row, and is of no account.

        >>> reports = pd.DataFrame({"key": ["7", "9"], "label": 1.0, "known_at": pd.Timestamp("2026-01-02")})
        >>> Statements(reports, reports.iloc[:0], "id").about(pd.Series([5, 7]))["reports"]["row"].tolist()
        [1]
        """
        names = read_names(keys).astype("str")
        shown = names
        if self.key is not None and self.masks.is_masked(self.key):
            masks, key = self.masks, self.key
            usable = masks.tells_apart(key) and len(self.verdicts)
            shown = names.map(lambda name: masks.show(key, name), na_action="ignore") if usable else names.iloc[:0]
        return {"reports": _joined(self.reports, names), "verdicts": _joined(self.verdicts, shown)}

    def strangers(self, keys: pd.Series) -> list[str]:
        """Keys that were reported and that none of the rows has, each once.

        >>> reports = pd.DataFrame({"key": ["7", "9"], "label": 1.0, "known_at": pd.Timestamp("2026-01-02")})
        >>> Statements(reports, reports.iloc[:0], "id").strangers(pd.Series([5, 7]))
        ['9']
        """
        names = set(read_names(keys).dropna().astype("str"))
        return [key for key in dict.fromkeys(self.reports["key"]) if key not in names]


def can_be_told(config: Config) -> bool:
    """Whether anything can tell which rows are fraud."""
    head = config.train.head
    return config.columns.label is not None or (config.columns.key is not None and bool(head.reports or head.verdicts))


def known_turns(
    rows: pd.DataFrame, statements: Statements, *, time: str, key: str | None, label: str | None, reported: str | None
) -> pd.DataFrame:
    """Since when each row was known to be fraud, when that was taken back, and when it was said again.

    A row is known to be fraud while the last that was said of it is "fraud": by the label column, a report or a
    verdict; of several at one moment in this order the last. "Fine" and "unsure" end that. A label without a column
    that says when it was reported stands from the row on, whatever is said, as nobody knows which came last. Turns
    after the third do not count.

    Parameters
    ----------
    rows : DataFrame
        With times as dates, and labels as numbers where there are any.
    statements : Statements
        Later ones too: each counts from its own date on.
    time, key, label, reported : str or None
        The columns; the last two need not be there.

    Returns
    -------
    DataFrame
        The three columns ``TURNS``, dates or missing, indexed as the rows.

    >>> said = pd.DataFrame({"key": "a", "label": [1.0, 0.0], "known_at": pd.to_datetime(["2026-01-02", "2026-01-05"])})
    >>> rows = pd.DataFrame({"id": ["a", "b"], "at": pd.Timestamp("2026-01-01")})
    >>> found = known_turns(rows, Statements(said, said[:0]), time="at", key="id", label=None, reported=None)
    >>> found.iloc[0].dt.day.tolist(), found.iloc[1].dt.day.tolist()
    ([2.0, 5.0, nan], [nan, nan, nan])
    """
    said = [_nothing("row")]
    undated = np.zeros(0, dtype=np.intp)
    if label is not None and label in rows:
        frauds = np.flatnonzero(rows[label].to_numpy(dtype=np.float64, na_value=np.nan) == 1)
        if reported is None:
            undated = frauds
        elif reported in rows:
            known_at = rows[reported].iloc[frauds].to_numpy()
            said.append(pd.DataFrame({"row": frauds, "label": 1.0, "known_at": known_at}).dropna())
    if key is not None:
        said += statements.about(rows[key]).values()
    words = pd.concat([each for each in said if len(each)] or said).sort_values(["row", "known_at"], kind="stable")
    fraud = words["label"] == 1
    turned = words[fraud != fraud.groupby(words["row"]).shift(fill_value=False)]
    number = turned.groupby("row").cumcount()
    found = {}
    for place, name in enumerate(TURNS):
        chosen, column = turned[number == place], np.full(len(rows), np.datetime64("NaT"), dtype=MOMENT)
        column[chosen["row"].to_numpy(dtype=np.intp)] = chosen["known_at"].to_numpy().astype(MOMENT)
        column[undated] = np.datetime64("NaT") if place else rows[time].iloc[undated].to_numpy().astype(MOMENT)
        found[name] = column
    return pd.DataFrame(found, index=rows.index)


def _verdicts(config: Config) -> pd.DataFrame:
    """What people answered to alerts, as statements; nothing if there is no state of a service yet."""
    store = existing_store(config.service.store) if config.train.head.verdicts else None
    if store is None:
        return _nothing()
    with closing(store), store.read() as session:
        statement = (
            sa.select(Answer.verdict, Answer.at, Alert.facts)
            .join(Alert, Alert.id == Answer.alert)
            .where(Alert.source == config.name)
            .order_by(Answer.id)
        )
        found = [
            (key, SAID[verdict], naive_utc(at))
            for verdict, at, facts in session.execute(statement)
            for key in facts.get("keys", [])
        ]
    return pd.DataFrame(found, columns=["key", "label", "known_at"]) if found else _nothing()


def _reports(config: Config) -> pd.DataFrame:
    """Reports as statements; without a column that says what was found, each says that it was fraud."""
    section = config.train.head.reports
    if section is None:
        return _nothing()
    source = open_source(section.source)
    try:
        frame = source.read()
    except NoRowsError:  # nobody has reported anything yet
        frame = pd.DataFrame(columns=source.columns())
    key = section.key or str(config.columns.key)
    for name in (key, section.at, *(() if section.label is None else (section.label,))):
        if name not in frame.columns:
            raise SchemaError(
                f"The reports of `train.head.reports` have no column {name!r}. {nearest(name, map(str, frame.columns))}"
            )
    if frame.empty:
        return _nothing()
    label = np.ones(len(frame)) if section.label is None else read_labels(frame[section.label])
    names = read_names(frame[key]).astype("str").astype("object")
    return pd.DataFrame({"key": names, "label": label, "known_at": read_dates(frame[section.at])[0]}).dropna()


def _joined(statements: pd.DataFrame, names: pd.Series) -> pd.DataFrame:
    """Statements with the positions of the rows of their keys."""
    keys = names.astype("object")  # Arrow's text takes seconds to look up among much text
    statements = statements[statements["key"].isin(keys.dropna())]
    wanted = keys.isin(statements["key"]).to_numpy()
    places = pd.DataFrame({"row": np.flatnonzero(wanted), "key": keys[wanted].to_numpy()})
    found = statements.merge(places, on="key") if len(places) else _nothing()
    return found.reindex(columns=["row", "label", "known_at"]).astype({"row": "int64", "known_at": MOMENT})


def _nothing(name: str = "key") -> pd.DataFrame:
    kind = "object" if name == "key" else "int64"
    return pd.DataFrame(
        {name: pd.Series(dtype=kind), "label": pd.Series(dtype="float64"), "known_at": pd.Series(dtype=MOMENT)}
    )

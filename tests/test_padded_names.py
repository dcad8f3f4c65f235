"""Blanks around a name mean nothing, wherever it is read: exports of CHAR(8) columns are padded."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmarks.soak import Site, draw
from detector.cleaning.clean import clean
from detector.schema import Schema
from pipelines.config import Config
from pipelines.labels.feedback import Statements
from pipelines.scoring import replay
from pipelines.scoring.one_off import score
from pipelines.training.train import train
from tests.service_sites import context, opened
from tests.service_sites import score as score_new

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


def test_padded_names_are_the_same_and_leading_zeros_are_not() -> None:
    """Keys, entities, categories, labels and booleans alike; "007" and "7" are two names."""
    schema = Schema(key="id", entity="card", label="fraud", boolean=("online",), categorical=("shop",))
    table = pd.DataFrame(
        {
            "id": ["1", "1   ", "007", "7"],
            "card": ["C019", "C019    ", " C019", "c019"],
            "fraud": ["0 ", " 1", "", "  "],
            "online": ["true ", " false", "1", " "],
            "shop": ["food", "food   ", "\tfood", "foo d"],
        }
    )

    whole = clean(table, schema, labelled=True, drop_duplicates=False).rows
    cleaned = clean(table, schema, labelled=True)

    assert whole["card"].tolist() == ["C019", "C019", "C019", "c019"]
    assert whole["shop"].tolist() == ["food", "food", "food", "foo d"]
    assert cleaned.rows["id"].tolist() == ["1", "007", "7"]
    assert cleaned.quarantine["reason"].tolist() == ["id: key 1 appears again (first at row 0)"]


def test_padded_export_has_the_same_scores(
    tmp_path: Path, payments: pd.DataFrame, configure: Callable[..., Config]
) -> None:
    """Learnt from one system and scored from another that pads: no card or shop is a stranger for that."""
    history = ["new of merchant_category by card_id over 30d", "count by card_id over 7d", "frauds by card_id over 7d"]
    members = {"autoencoder": {"enabled": False}, "neighbours": {"enabled": False}, "forest": {"trees": 20}}
    payments.iloc[:1200].to_parquet(tmp_path / "payments.parquet")
    config = configure(tmp_path, features={"history": history}, train=members)
    train(config, now=NOW)
    new = payments.iloc[1200:].astype({"card_id": str, "transaction_id": str})
    padded = new.assign(
        **{name: new[name].str.ljust(24) for name in ("card_id", "merchant_category", "transaction_id", "country")}
    )
    risks = []

    for name, frame in (("plain", new), ("padded", padded)):
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
        report = score(
            config, now=NOW, input=str(tmp_path / f"{name}.csv"), output=str(tmp_path / f"{name}.scores.parquet")
        )
        risks.append(pd.read_parquet(report.output)["risk"])

    pd.testing.assert_series_equal(risks[0], risks[1])


@pytest.mark.parametrize("way", ["table to files", "table to table"])
def test_padded_keys_of_a_followed_table_are_scored_once(tmp_path: Path, tiny_bundle: Path, way: str) -> None:
    """A late look and a replay know the row again, though its scores hold the name without blanks."""
    import sqlite3
    from contextlib import closing

    site = Site(tmp_path / "site", tiny_bundle, way, settings={"cursor": "arrived", "lateness": 3600})
    frame = draw(20, first=0, seed=0).assign(arrived=range(1000, 1020))
    with closing(sqlite3.connect(site.folder / "source.db")) as connection:
        frame.assign(id=frame["id"].astype(str).str.ljust(8)).to_sql("rows", connection, index=False)
    arguments: dict[str, Any] = {"actor": "ann", "reason": "asked"}

    first, again = score_new(site), score_new(site)
    with opened(site) as store:
        replayed = replay.replay(context(site, store, arguments=arguments))

    assert (first.rows, again.outcome, replayed.facts["scored"]) == (20, "skipped", 20)
    assert {int(key): times for key, times in site.scored().items()} == dict.fromkeys(range(20), 1)


def test_padded_reports_find_their_rows() -> None:
    """A padded key of a report names the row of the key without blanks, and the other way round."""
    reports = pd.DataFrame({"key": ["C7"], "label": 1.0, "known_at": pd.Timestamp("2026-01-02")})

    assert Statements(reports, reports[:0], "id").about(pd.Series(["C7   ", "07"]))["reports"]["row"].tolist() == [0]


def test_padded_labels_are_read_as_anywhere(tmp_path: Path) -> None:
    """A report's "yes " is a label, as it is in the label column; another word is an error that names it."""
    (tmp_path / "reports.csv").write_text("id,at,fraud\nC1 ,2026-01-02,yes \nC2,2026-01-02, 0\n")
    reports = {"source": {"path": "reports.csv"}, "key": "id", "at": "at", "label": "fraud"}
    values = {"source": {"path": "x.csv"}, "columns": {"key": "id"}, "train": {"head": {"reports": reports}}}

    found = Statements.read(Config.model_validate(values, context={"folder": tmp_path}))

    assert found.reports[["key", "label"]].values.tolist() == [["C1", 1.0], ["C2", 0.0]]

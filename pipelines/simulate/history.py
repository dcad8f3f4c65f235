"""A few columns about each card's own past, computed at the point in time of each payment."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl

from detector.errors import DataError, SchemaError, nearest

HISTORY_COLUMNS = (
    "amount_to_card_mean",
    "minutes_since_last",
    "payments_past_hour",
    "distance_from_usual_km",
    "new_device",
)
_NEEDED = ("transaction_id", "time", "card_id", "device", "amount", "latitude", "longitude")
_HOUR = 3_600_000_000
_EARTH_KM = 6371.0


def with_history(frame: pd.DataFrame) -> pd.DataFrame:
    """Add what a payment looks like beside the earlier payments of its card.

    Only earlier payments count, in the order of (time, transaction_id); the payment itself does not. So a
    later row changes nothing, and of two payments in one second the one with the smaller id is the earlier.

    Parameters
    ----------
    frame : DataFrame
        Payments with the columns that ``simulate`` gives, in any order.

    Returns
    -------
    DataFrame
        The same rows in the same order, with five more columns:

        - ``amount_to_card_mean``: the amount over the mean amount of the card's past;
        - ``minutes_since_last``: since the card's payment before;
        - ``payments_past_hour``: how many the card made in the 60 minutes before;
        - ``distance_from_usual_km``: from the mean of the card's past places;
        - ``new_device``: 1 if the card used another device first, and this one not before the past 24 hours.

        The ratio, the minutes and the distance are missing where there is no past.

    Raises
    ------
    SchemaError
        If a column is missing.
    DataError
        If ``time`` holds no dates, or misses some.

    >>> frame = pd.DataFrame({"transaction_id": ["a", "b"], "time": pd.to_datetime(["2024-01-01", "2024-01-02"])})
    >>> frame = frame.assign(card_id="c", device="d", amount=[10.0, 30.0], latitude=50.0, longitude=9.0)
    >>> with_history(frame)["amount_to_card_mean"].tolist()
    [nan, 3.0]
    """
    for name in _NEEDED:
        if name not in frame.columns:
            raise SchemaError(f"with_history expected a column {name!r}. {nearest(name, map(str, frame.columns))}")
    if not pd.api.types.is_datetime64_any_dtype(frame["time"]) or frame["time"].isna().any():
        raise DataError(
            f"with_history expected a date in every row of 'time', got type {frame['time'].dtype} with "
            f"{int(frame['time'].isna().sum())} missing. Use pandas.to_datetime and drop rows without a date."
        )
    rows = pl.from_pandas(frame[list(_NEEDED)].reset_index(drop=True), nan_to_null=True)
    rows = rows.with_columns(
        pl.int_range(pl.len()).alias("row"),
        pl.col("time").dt.cast_time_unit("us").to_physical().alias("time"),
    )
    rows = rows.sort("card_id", "time", "transaction_id")
    rows = rows.with_columns(pl.col("card_id").rle_id().alias("card"))
    rows = rows.with_columns(_past_mean("amount"), _past_mean("latitude"), _past_mean("longitude"))
    rows = rows.with_columns(
        (pl.col("amount") / pl.col("past_amount")).alias("amount_to_card_mean"),
        (pl.col("time").diff().over("card") / 60e6).alias("minutes_since_last"),
        _payments_past_hour(rows).alias("payments_past_hour"),
        _distance().alias("distance_from_usual_km"),
        _new_device().alias("new_device"),
    )
    added = rows.sort("row").select(HISTORY_COLUMNS)
    return frame.assign(**{name: added[name].to_numpy() for name in HISTORY_COLUMNS})


def _past_mean(column: str) -> pl.Expr:
    value, known = pl.col(column).fill_null(0.0), pl.col(column).is_not_null()
    total = (value.cum_sum() - value).over("card")
    count = (known.cum_sum() - known.cast(pl.UInt32)).over("card")
    return pl.when(count > 0).then(total / count).alias(f"past_{column}")


def _payments_past_hour(rows: pl.DataFrame) -> pl.Series:
    """Count by position: rows stand in order, so where the window begins tells how many are in it."""
    moments, moment = np.unique(rows["time"].to_numpy(), return_inverse=True)
    card = rows["card"].to_numpy().astype(np.int64) * len(moments)
    # Moments are numbered, so that card and time fit into one 64-bit number in whatever unit.
    opens = np.searchsorted(moments, moments - _HOUR)[moment]
    first = np.searchsorted(card + moment, card + opens)
    return pl.Series(np.arange(len(card)) - first, dtype=pl.Int64)


def _distance() -> pl.Expr:
    lat, past_lat = pl.col("latitude").radians(), pl.col("past_latitude").radians()
    half_lat = ((lat - past_lat) / 2).sin() ** 2
    half_lon = ((pl.col("longitude") - pl.col("past_longitude")).radians() / 2).sin() ** 2
    chord = (half_lat + lat.cos() * past_lat.cos() * half_lon).clip(0, 1).sqrt()
    return 2 * _EARTH_KM * chord.arcsin()


def _new_device() -> pl.Expr:
    known = pl.col("device").is_not_null()
    first_of_device = pl.col("time").first().over("card", "device")
    # The card's first device is its own; the rows stand in order, so its first known one comes first.
    first_of_card = pl.col("device").drop_nulls().first().over("card")
    young = pl.col("time") - first_of_device <= 24 * _HOUR
    return (known & young & (pl.col("device") != first_of_card)).fill_null(False).cast(pl.Int64)

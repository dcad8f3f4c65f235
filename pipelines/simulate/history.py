"""A few columns about each card's own past, computed at the point in time of each payment."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pandas as pd

from detector.errors import DataError, SchemaError, nearest
from pipelines.simulate.population import Floats, Ints

HISTORY_COLUMNS = (
    "amount_to_card_mean",
    "minutes_since_last",
    "payments_past_hour",
    "distance_from_usual_km",
    "new_device",
)
_NEEDED = ("transaction_id", "time", "card_id", "device", "amount", "latitude", "longitude")
_HOUR = 3_600_000_000
_MINUTES = 1 / 60_000_000
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
    moments = pd.DatetimeIndex(frame["time"]).as_unit("us").asi8
    order = (
        frame[["card_id", "transaction_id"]]
        .set_axis(np.arange(len(frame)))
        .assign(time=moments)
        .sort_values(["card_id", "time", "transaction_id"], na_position="first", kind="stable")
        .index.to_numpy()
    )
    time = moments[order]
    card = pd.factorize(frame["card_id"].to_numpy(), use_na_sentinel=False)[0][order]
    device = pd.factorize(frame["device"].to_numpy())[0][order]
    amount, latitude, longitude = (
        frame[name].to_numpy(dtype=np.float64, na_value=np.nan)[order] for name in ("amount", "latitude", "longitude")
    )
    bounds = np.append(np.flatnonzero(np.diff(card, prepend=-1)), len(card))
    first = np.repeat(bounds[:-1], np.diff(bounds))
    past = [_past_mean(values, bounds) for values in (amount, latitude, longitude)]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = amount / past[0]
    added = {
        "amount_to_card_mean": ratio,
        "minutes_since_last": np.where(first == np.arange(len(card)), np.nan, np.diff(time, prepend=0) * _MINUTES),
        "payments_past_hour": _payments_past_hour(time, first),
        "distance_from_usual_km": _distance(latitude, longitude, past_latitude=past[1], past_longitude=past[2]),
        "new_device": _new_device(time, card, device),
    }
    back = np.argsort(order)
    return frame.assign(**{name: added[name][back] for name in HISTORY_COLUMNS})


def _past_mean(values: Floats, bounds: Ints) -> Floats:
    """The mean of a card's known values before each row; summed in order, so that a row's mean is its own past's."""
    known = ~np.isnan(values)
    filled = np.where(known, values, 0.0)
    total, count = filled.copy(), known.astype(np.float64)
    for start, stop in pairwise(bounds):
        if stop - start > 1:
            np.cumsum(filled[start:stop], out=total[start:stop])
            np.cumsum(known[start:stop], out=count[start:stop])
    count -= known
    mean: Floats = np.divide(total - filled, count, out=np.full(len(values), np.nan), where=count > 0)
    return mean


def _payments_past_hour(time: Ints, first: Ints) -> Ints:
    """Count by position: rows stand in order, so where the window begins tells how many are in it."""
    moments, moment = np.unique(time, return_inverse=True)
    # Moments are numbered, so that card and time fit into one 64-bit number in whatever unit.
    card = first * len(moments)
    opens = np.searchsorted(moments, moments - _HOUR)[moment]
    return np.arange(len(card)) - np.searchsorted(card + moment, card + opens)


def _distance(latitude: Floats, longitude: Floats, *, past_latitude: Floats, past_longitude: Floats) -> Floats:
    lat, past_lat = np.radians(latitude), np.radians(past_latitude)
    half_lat = np.sin((lat - past_lat) / 2) ** 2
    half_lon = np.sin(np.radians(longitude - past_longitude) / 2) ** 2
    chord = np.sqrt(np.clip(half_lat + np.cos(lat) * np.cos(past_lat) * half_lon, 0, 1))
    # NumPy's arcsin gives other last digits on a CPU with AVX-512; a seed's table is the same everywhere.
    return 2 * _EARTH_KM * np.fromiter(map(math.asin, chord), np.float64, len(chord))


def _new_device(time: Ints, card: Ints, device: Ints) -> Ints:
    """The card's first device is its own; the rows stand in order, so its first known one comes first."""
    rows = pd.DataFrame({"card": card, "device": device, "time": time})
    young = time - rows.groupby(["card", "device"])["time"].transform("first").to_numpy() <= 24 * _HOUR
    own = rows["device"].where(rows["device"] >= 0).groupby(rows["card"]).transform("first")
    strange: Ints = ((device >= 0) & young & (device != own)).to_numpy(dtype=np.int64)
    return strange

"""Every error this project raises on purpose.

::

    DetectorError
    ├── SchemaError          (ValueError)     a column is missing, misnamed or of the wrong kind
    ├── DataError            (ValueError)     the rows cannot be used: none, one, all constant
    │   └── NotFoundError    (DataError)      what was asked for by name or number is not there
    ├── ShapeError           (ValueError)     an array has the wrong shape
    ├── SettingError         (ValueError)     a parameter or a configuration key has no meaning
    │   └── WarmStartError   (SettingError)   earlier weights have other shapes than the network
    ├── UnfittedError        (ValueError, AttributeError)  a detector was used before ``fit``
    ├── BundleError          (ValueError)     a saved detector is incomplete, changed or too new
    ├── ParityError          (ArithmeticError)  the ONNX graph and the model it came from disagree
    ├── SourceError          (OSError)        a file, a folder or a database cannot be read
    ├── SinkError            (OSError)        results cannot be written
    ├── StoreError           (OSError)        the service's state cannot be reached, or is another instance's
    ├── TrackingError        (OSError)        MLflow cannot be reached or does not know a model
    └── MissingExtraError    (ImportError)    an optional part is not installed

A message says what was expected, what was received and what to do next.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class DetectorError(Exception):
    """The root: ``except DetectorError`` catches all that this project raises on purpose."""


class SchemaError(DetectorError, ValueError):
    """A column is missing, misnamed or of the wrong kind; ``column`` is its name where one alone is wrong."""

    def __init__(self, text: str, *, column: str = "") -> None:
        super().__init__(text)
        self.column = column


class DataError(DetectorError, ValueError):
    """The rows cannot be used: there are none, or nothing in them varies."""


class NotFoundError(DataError):
    """What was asked for by its name or number is not there; a program that asked over HTTP is answered 404."""


class ShapeError(DetectorError, ValueError):
    """An array has the wrong shape."""


class SettingError(DetectorError, ValueError):
    """A parameter or a configuration key has no meaning."""


class WarmStartError(SettingError):
    """Earlier weights have other shapes than the network they are to start."""


class UnfittedError(DetectorError, ValueError, AttributeError):
    """A detector was used before ``fit``."""


class BundleError(DetectorError, ValueError):
    """A saved detector is incomplete, changed or written by a newer version."""


class ParityError(DetectorError, ArithmeticError):
    """The ONNX graph and the model it came from disagree."""


class SourceError(DetectorError, OSError):
    """A file, a folder or a database cannot be read."""


class SinkError(DetectorError, OSError):
    """Results cannot be written."""


class StoreError(DetectorError, OSError):
    """The service's state cannot be read or written, or another instance has taken over."""


class TrackingError(DetectorError, OSError):
    """MLflow cannot be reached or does not know a model."""


class MissingExtraError(DetectorError, ImportError):
    """An optional part is not installed."""


_EXTRAS = {
    "train": ("keras", "matplotlib", "mlflow", "onnx", "scipy", "sklearn", "tensorflow", "tf2onnx", "threadpoolctl"),
    "service": ("alembic", "apprise", "apscheduler", "fastapi", "httpcore", "httpx", "prometheus_client", "uvicorn"),
    "spark": ("pyspark",),
    "stream": ("confluent_kafka",),
}
"""The packages of the extras in ``pyproject.toml``, by the names they are imported by."""


def missing_extra(error: ModuleNotFoundError) -> MissingExtraError | None:
    """The error that says which extra brings a package that is not there; None if none of ours does.

    >>> print(missing_extra(ModuleNotFoundError("No module named 'sklearn'", name="sklearn.base")))
    This needs sklearn, which is not installed. Install it with: pip install 'anomaly-detector[train]'
    >>> missing_extra(ModuleNotFoundError("No module named 'numpi'", name="numpi")) is None
    True
    """
    package = (error.name or "").partition(".")[0]
    for extra, packages in _EXTRAS.items():
        if package in packages:
            return MissingExtraError(
                f"This needs {package}, which is not installed. "
                f"Install it with: pip install 'anomaly-detector[{extra}]'"
            )
    return None


def nearest(name: str, known: Iterable[str], *, spare: Iterable[str] | None = None) -> str:
    """Say which known name was probably meant, or list them all.

    With ``spare`` only one of those can have been meant.

    >>> nearest("amuont", ["amount", "country"])
    "Did you mean 'amount'?"
    >>> nearest("zzz", ["amount", "country"])
    'Known: amount, country.'
    """
    names = sorted(map(str, known))
    meant = names if spare is None else sorted(map(str, spare))
    same = [other for other in meant if other.casefold() == str(name).casefold()]
    if close := same or get_close_matches(str(name), meant, n=1):
        return f"Did you mean {close[0]!r}?"
    shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    return f"Known: {shown}." if names else "There are none."

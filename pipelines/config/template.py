"""The configuration file that ``detector init`` writes: every key, its default and what it means."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from textwrap import wrap
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from detector.errors import SettingError, nearest
from pipelines.config import Config
from pipelines.config.reading import section_of

WIDTH = 100
HEADER = """\
# What the detector reads, learns, flags and writes, with the defaults.
# A key behind "# " is off; take the "# " away to use it.
# Paths are relative to this file. ${NAME} in a path or a URL is an environment variable: a place for
# passwords.
#
#   detector doctor detector.yaml     check this file and all that it names
#   detector train detector.yaml      learn
#   detector score detector.yaml      flag and explain
"""
TEMPLATES: dict[str, dict[str, Any]] = {
    "table": {"source": {"path": "data.csv"}},
    "transactions": {
        "name": "payments",
        "source": {"path": "payments.parquet"},
        "columns": {
            "key": "transaction_id",
            "time": "time",
            "entity": "card_id",
            "label": "is_fraud",
            "numeric": ["amount"],
            "categorical": ["merchant_category", "channel"],
            "others": "ignore",
        },
        "features": {
            "history": [
                "ratio of amount by card_id over 30d, 90d",
                "zscore of amount by card_id over 90d",
                "count by card_id over 1h, 1d",
                "since by card_id over 90d",
                "new of device by card_id over 90d",
                "new of terminal_id by card_id over 90d",
                "speed of latitude, longitude by card_id over 1d",
                "risk by terminal_id over 1d, 7d, 30d delay 7d",
            ],
            "calendar": ["night", "weekend"],
            "reported": "reported_at",
        },
        "policy": {"quantile": 0.998, "budget": {"rows": 100, "per": "day"}},
    },
    "sensors": {
        "name": "machines",
        "kind": "sensors",
        "source": {"path": "data.csv"},
        "columns": {"time": "time"},
        "series": {"wait": 60},
        "policy": {"quantile": 0.999},
        "alerts": {"recovery": True},
    },
}
HIDDEN: dict[str, frozenset[str]] = {
    "table": frozenset({"series"}),
    "transactions": frozenset({"series"}),
    "sensors": frozenset(
        {
            "columns.categorical",
            "columns.datetime",
            "columns.for_rules",
            "features",
            "lists",
            "policy.explore",
            "policy.rows_a_day",
            "rules",
            "train.autoencoder",
            "train.calibrate_on",
            "train.calibration_share",
            "train.clean_share",
            "train.cleaning",
            "train.forest",
            "train.head",
            "train.neighbours",
            "train.tail",
        }
    ),
}
"""What a template leaves out, because it means nothing for rows of that kind."""

_EXAMPLES: dict[str, Any] = {
    "source.url": "sqlite:///data.db",
    "source.table": "transactions",
    "source.query": "SELECT * FROM transactions WHERE day = CURRENT_DATE",
    "source.topic": {"name": "transactions", "servers": "localhost:9092"},
    "source.separator": ";",
    "source.header": 4,
    "columns.key": "transaction_id",
    "columns.time": "time",
    "columns.entity": "account_id",
    "columns.entity_from": "filename",
    "columns.label": "fraud",
    "policy.fdr": 0.1,
    "policy.quantile": 0.999,
    "policy.budget": {"rows": 100},
    "policy.rows_a_day": 20000,
    "output.url": "sqlite:///data.db",
    "output.table": "scores",
    "output.quarantine": "quarantine.csv",
    "alerts.amount": "amount",
    "alerts.large_amount": 5000,
    "alerts.small_amount": 20,
    "alerts.mask_secret": "${MASK_SECRET}",
    "alerts.quiet": {"since": "22:00"},
    "alerts.review_url": "https://review.example.com/alerts/{id}",
    "alerts.run_url": "https://mlflow.example.com/#/models/transactions",
    "alerts.answers": {"url": "https://detector.example.com", "secret": "${ANSWER_SECRET}"},
    "alerts.templates": "templates",
    "alerts.webhook": {"url": "https://example.com/alerts", "secrets": ["${WEBHOOK_SECRET}"]},
    "alerts.alertmanager": {"url": "https://alertmanager.example.com"},
    "alerts.pagerduty": {"routing_key": "${PAGERDUTY_KEY}"},
    "alerts.slack": {"url": "${SLACK_URL}"},
    "alerts.email": {
        "host": "smtp.example.com",
        "user": "detector",
        "sender": "detector@example.com",
        "to": ["risk@example.com"],
    },
    "alerts.email.password": "${MAIL_PASSWORD}",
    "alerts.apprise": {"urls": ["${APPRISE_URL}"]},
    "train.head.reports": {"source": {"path": "chargebacks.csv"}},
    "train.head.reports.source.url": "sqlite:///data.db",
    "train.head.reports.source.table": "chargebacks",
    "train.head.reports.source.query": "SELECT * FROM chargebacks",
    "train.head.reports.source.topic": {"name": "chargebacks", "servers": "localhost:9092"},
    "train.head.reports.source.separator": ";",
    "train.head.reports.source.header": 4,
    "train.head.reports.key": "transaction_id",
    "train.head.reports.label": "fraud",
    "service.cursor": "arrived_at",
    "service.console.proxy.header": "X-Forwarded-User",
    "service.console.proxy.groups_header": "X-Forwarded-Groups",
    "service.repeated_rows": "skip",
    "service.keep_scores": 730,
    "service.keep_alerts": 730,
    "tracking.experiment": "transactions",
    "tracking.model": "transactions",
    "features.currency": "currency",
    "features.reported": "reported_at",
    "features.lateness": 3600,
    "series.encoder.kind": "conv1d",
    "series.smoothing": 5.0,
    "series.range_floor": 0.01,
    "series.group_by": "^([a-z]+)-",
    "series.learn_from": 100,
    "series.wait": 60,
    "series.gates.range": [0, 90],
    "series.maintenance.calendar": "maintenance.csv",
    "series.maintenance.timezone": "Europe/Berlin",
    "series.period": "7d",
    "series.timezone": "Europe/Berlin",
    "series.sampling.every": "1min",
}


def render(template: str) -> str:
    """A commented configuration.

    Raises ``SettingError`` if there is no such template.
    """
    if template not in TEMPLATES:
        raise SettingError(f"There is no template {template!r}. {nearest(template, TEMPLATES)}")
    return HEADER + "\n".join(_section(Config, TEMPLATES[template], hidden=HIDDEN[template])) + "\n"


def _section(
    model: type[BaseModel], given: Mapping[str, Any], *, hidden: frozenset[str], place: tuple[str, ...] = ()
) -> Iterator[str]:
    """The lines of one section; what has no default is off, and shows an example."""
    margin = "  " * len(place)
    for name, field in model.model_fields.items():
        here = (*place, name)
        if ".".join(here) in hidden:
            continue
        inner = section_of(field.annotation)
        value = given.get(name, _default(field))
        mark = margin
        if value is None:
            mark, value = f"{margin}# ", _EXAMPLES[".".join(here)]
        if not place or inner is not None:
            yield ""
        yield from (f"{margin}# {line}" for line in wrap(field.description or "", WIDTH - len(margin)))
        if inner is None:
            yield from (f"{mark}{line}" for line in _lines(name, value, WIDTH - len(mark)))
        else:
            yield f"{mark}{name}:"
            values = value.model_dump() if isinstance(value, BaseModel) else value
            for line in _section(inner, values, hidden=hidden, place=here):
                yield f"{mark}{line.removeprefix(margin)}" if line else line


def _lines(name: str, value: Any, width: int) -> Iterator[str]:
    """A key and its value: a list that is too long for one line takes one line an item."""
    line = f"{name}: {_scalar(value)}"
    if len(line) <= width or not isinstance(value, list | tuple):
        yield line
        return
    yield f"{name}:"
    yield from (f"  - {_scalar(item)}" for item in value)


def _default(field: FieldInfo) -> Any:
    default = field.get_default(call_default_factory=True)
    return None if default is PydanticUndefined else default


def _scalar(value: Any) -> str:
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_scalar(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_scalar(item)}" for key, item in value.items()) + "}"
    text = str(value)
    plain = text.replace("_", "").replace("-", "").replace(".", "").replace("/", "")
    return text if plain.isalnum() and not text[0].isdigit() else json.dumps(text)

"""Words in the name of a column that tell what it may mean, in English and German."""

from __future__ import annotations

import re

TIME = re.compile(r"time|date|datum|zeit|created|booked|when|timestamp|(^|_)at$|(^|_)ts$", re.IGNORECASE)
KEY = re.compile(r"(^|[\W_])(id|key|nr|no|number|uuid|ref|reference)($|[\W_])|id$|nummer$", re.IGNORECASE)
LABEL = re.compile(
    r"fraud|label|anomal|outlier|target|fault|failure|abnormal|chargeback|(^|_)class$|betrug|auff(ä|ae)llig|störung",
    re.IGNORECASE,
)
CODE = re.compile(
    r"zip|post_?code|plz|code|mcc|category|type|status|country|currency|shop|store|branch|terminal|merchant|product|_id$"
    r"|cost_?cent(er|re)|kostenstelle|filiale|artikel",
    re.IGNORECASE,
)
AMOUNT = re.compile(
    r"amount|betrag|price|preis|total|umsatz|(^|[\W_])(sum|value|net|netto|gross|brutto)($|[\W_])", re.IGNORECASE
)
PARTIES = (
    *("card", "account", "supplier", "vendor", "lieferant", "kreditor", "iban", "customer", "client", "user", "member"),
    *("patient", "employee", "karte", "konto", "kunde", "mitarbeiter"),
)
THINGS = (
    *("machine", "device", "asset", "pump", "engine", "turbine", "vehicle", "host", "sensor", "unit"),
    *("merchant", "terminal", "shop", "maschine", "anlage", "gerät", "geraet"),
)
ENTITIES = PARTIES + THINGS
ACCOUNT = re.compile(r"iban|account|konto|device|ger(ä|ae)t", re.IGNORECASE)
CURRENCY = re.compile(r"currency|(^|_)ccy($|_)|w(ä|ae)hrung|devise", re.IGNORECASE)
SORT = re.compile(r"type|class|category|status|kind|group|(^|_)art$|typ$|klasse|gruppe", re.IGNORECASE)

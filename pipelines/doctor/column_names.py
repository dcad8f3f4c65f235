"""Words in the name of a column that tell what it may mean, in English and German."""

from __future__ import annotations

import re

TIME = re.compile(r"time|date|datum|zeit|created|booked|when|timestamp|(^|_)at$|(^|_)ts$", re.IGNORECASE)
YEAR = re.compile(r"(^|[\W_])(year|yr|jahr)($|[\W_])", re.IGNORECASE)
KEY = re.compile(r"(^|[\W_])(id|key|nr|no|number|uuid|ref|reference)($|[\W_])|id$|nummer$", re.IGNORECASE)
LABEL = re.compile(
    r"fraud|label|anomal|outlier|target|fault|failure|abnormal|chargeback|(^|_)class$|betrug|auff(ä|ae)llig|störung",
    re.IGNORECASE,
)
CODE = re.compile(
    r"zip|post_?code|plz|code|mcc|category|type|status|country|currency|shop|store|branch|terminal|merchant|product|_id$"
    r"|cost_?cent(er|re)|kostenstelle|filiale|artikel|(^|[\W_])[sd]?port$|(src|source|dst|dest|destination)[\W_]?port|imei|imsi",
    re.IGNORECASE,
)
AMOUNT = re.compile(
    r"amount|betrag|price|preis|total|umsatz|gebühr|kosten"
    r"|(^|[\W_])(sum|value|net|netto|gross|brutto|charge|cost|fee|premium)($|[\W_])",
    re.IGNORECASE,
)
PARTIES = (
    *("card", "account", "supplier", "vendor", "lieferant", "kreditor", "customer", "client", "user", "member"),
    *("patient", "employee", "personnel", "karte", "konto", "kunde", "mitarbeiter", "personal-?nr", "personalnummer"),
    *("caller", "subscriber", "msisdn", "anrufer", "policyholder", "tenant", "driver", "household", "e-?mail", "iban"),
)
THINGS = (
    *("machine", "device", "asset", "pump", "engine", "turbine", "vehicle", "sensor"),
    *(r"(?<![a-z])host", r"(?<![a-z])unit"),
    *("merchant", "terminal", "shop", "maschine", "anlage", "gerät", "geraet"),
    *(r"(src|source|remote|orig)[\W_]?(ip|addr)", r"orig_h$", r"(^|[\W_])ip($|[\W_]|v?[46]|_?addr)", "ip_?addr"),
    *("fingerprint", "imei", "imsi", "phone", "callee", "called"),
)
SEVERAL = re.compile(rf"({'|'.join(PARTIES + THINGS)})s$", re.IGNORECASE)
ENTITIES = tuple(re.compile(word, re.IGNORECASE) for word in PARTIES + THINGS)
ACCOUNT = re.compile(r"iban|account|konto|device|ger(ä|ae)t|fingerprint|imei", re.IGNORECASE)
LATITUDE = re.compile(r"(^|[\W_])(lat|latitude|breitengrad)($|[\W_])", re.IGNORECASE)
LONGITUDE = re.compile(r"(^|[\W_])(lon|lng|long|longitude|längengrad|laengengrad)($|[\W_])", re.IGNORECASE)
CURRENCY = re.compile(r"currency|(^|_)ccy($|_)|w(ä|ae)hrung|devise", re.IGNORECASE)
SORT = re.compile(
    r"type|class|category|status|kind|group|(^|_)art$|typ$|klasse|gruppe"
    r"|(^|[\W_])(agent|model|age|count|limit|balance|score|rate|days|since|country|city|state|region|segment|level|port)"
    r"($|[\W_])",
    re.IGNORECASE,
)
"""What an entity is like, not which."""


def rank_of(name: str) -> int | None:
    """How likely a column of that name says who or what a row is about, 0 the likeliest; None if it is not known to.

    How many users or cards there are is a number of them, and names none.

    >>> rank_of("card_id"), rank_of("src_ip") < rank_of("dst_ip"), rank_of("description"), rank_of("user_agent")
    (0, True, None, None)
    >>> rank_of("active_users"), rank_of("Cards"), rank_of("community")
    (None, None, None)
    """
    if SORT.search(name) or SEVERAL.search(name):
        return None
    return next((place for place, word in enumerate(ENTITIES) if word.search(name)), None)

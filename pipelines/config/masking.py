"""Values nobody is to read in full: hashed, cut to the last four signs, or left out."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field

from pipelines.config import Config

HIDDEN = "(hidden)"


@dataclass(frozen=True)
class Masks:
    """What to do with the values of some columns.

    Parameters
    ----------
    of : mapping of str to {"hash", "last4", "hide"}
        By column.
    secret : bytes
        What hashes are made with.

    >>> masks = Masks({"card": "last4", "name": "hide"})
    >>> masks.show("card", "4929123412341234"), masks.show("name", "Ann"), masks.show("amount", 7)
    ('…1234', '(hidden)', '7')
    """

    of: Mapping[str, str] = field(default_factory=dict)
    secret: bytes = b""

    def is_masked(self, column: str) -> bool:
        """Whether the column, or the one a part such as "birth weekday" is made of, is not to be read."""
        return self._rule(column) is not None

    def tells_apart(self, column: str) -> bool:
        """Whether different values of a column are still different as people read them."""
        return self._rule(column) in (None, "hash")

    def show(self, column: str, value: object) -> str:
        """A value as people may read it."""
        text, rule = str(value), self._rule(column)
        if rule is None:
            return text
        if rule == "last4":
            return f"…{text[-4:]}" if len(text) > 8 else HIDDEN  # four of five signs would be nearly all of it
        if rule == "hash":
            digest = hmac.new(self.secret, f"{column}\0{text}".encode(), hashlib.sha256).hexdigest()
            return f"#{digest[:12]}"
        return HIDDEN

    def _rule(self, column: str) -> str | None:
        if column in self.of:
            return self.of[column]
        return next((self.of[name] for name in self.of if column.startswith(f"{name} ")), None)


def masks_of(config: Config) -> Masks:
    """What nobody is to read, as the configuration says."""
    secret = config.alerts.mask_secret
    return Masks(config.alerts.mask, b"" if secret is None else secret.get_secret_value().encode())

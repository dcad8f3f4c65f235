"""Values nobody is to read in full: hashed, cut to the last four signs, or left out."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import SecretStr

from pipelines.config import Config
from pipelines.config.alert_channels import MissingSecret

HIDDEN = "(hidden)"


@dataclass(frozen=True)
class Masks:
    """What to do with the values of some columns.

    - ``of``: "hash", "last4" or "hide", by column.
    - ``secret``: What hashes are made with.
    - ``missing``: What says so where that is needed and not there.

    >>> masks = Masks({"card": "last4", "name": "hide"})
    >>> masks.show("card", "4929123412341234"), masks.show("name", "Ann"), masks.show("amount", 7)
    ('…1234', '(hidden)', '7')
    >>> masks.show("card holder", "Ann")  # another column than the card
    'Ann'
    """

    of: Mapping[str, str] = field(default_factory=dict)
    secret: bytes = b""
    missing: SecretStr | None = None

    def is_masked(self, *columns: str) -> bool:
        """Whether any of the columns is not to be read in full."""
        return self._rule(columns) is not None

    def tells_apart(self, column: str) -> bool:
        """Whether different values of a column are still different as people read them."""
        return self._rule((column,)) in (None, "hash")

    def show(self, column: str, value: object, *, made_of: Sequence[str] = ()) -> str:
        """A value as people may read it, also by the rules of the columns it is made of."""
        text, rule = str(value), self._rule((column, *made_of))
        if rule is None:
            return text
        if rule == "last4":
            return f"…{text[-4:]}" if len(text) > 8 else HIDDEN  # four of five signs would be nearly all of it
        if rule == "hash":
            secret = self.secret if self.missing is None else self.missing.get_secret_value().encode()
            digest = hmac.new(secret, f"{column}\0{text}".encode(), hashlib.sha256).hexdigest()
            return f"#{digest[:12]}"
        return HIDDEN

    def show_all(self, column: str, values: Sequence[object]) -> list[str]:
        """Values of one column as people may read them."""
        return [self.show(column, value) for value in values]

    def _rule(self, columns: Sequence[str]) -> str | None:
        """The one rule of all the columns; where they have different ones, nothing is shown."""
        rules = {self.of[column] for column in columns if column in self.of}
        return "hide" if len(rules) > 1 else next(iter(rules), None)


def masks_of(config: Config) -> Masks:
    """What nobody is to read, as the configuration says."""
    secret = config.alerts.mask_secret
    if isinstance(secret, MissingSecret):
        return Masks(config.alerts.mask, missing=secret)
    return Masks(config.alerts.mask, b"" if secret is None else secret.get_secret_value().encode())

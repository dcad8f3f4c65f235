"""The rules that are looked at, read and checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from detector.errors import SettingError
from pipelines.config.rules import RuleSection
from pipelines.rules.expression import Condition
from pipelines.rules.lists import ValueList
from pipelines.rules.names import Names


def version_of(rules: Sequence[RuleSection]) -> str:
    """Names exactly these rules in these states; rules that are off count too, the order does not.

    >>> version_of([]) == version_of([]), len(version_of([]))
    (True, 12)
    """
    return _digest(sorted([rule.name, rule.definition, rule.state] for rule in rules))


def hash_of(rule: RuleSection) -> str:
    """Names exactly what a rule says, whatever its state."""
    return _digest(rule.definition)


def _digest(content: object) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Rule:
    """A rule whose condition fits the columns."""

    section: RuleSection
    condition: Condition

    @property
    def name(self) -> str:
        """What it is called."""
        return self.section.name

    @property
    def is_live(self) -> bool:
        """Whether it acts."""
        return self.section.state == "live"


@dataclass(frozen=True)
class RuleBook:
    """Rules that are live or in the shadow, the names they may use, and the lists.

    - ``version``: Of all rules and their states.
    - ``broken``: Rules that cannot be looked at, and why.
    - ``time``: The column that says when a row happened.
    """

    rules: tuple[Rule, ...]
    names: Names
    lists: Callable[[tuple[str, ...]], Mapping[str, ValueList]]
    version: str
    broken: Mapping[str, str] = field(default_factory=dict)
    time: str | None = None

    @classmethod
    def of(
        cls,
        sections: Sequence[RuleSection],
        names: Names,
        lists: Callable[[tuple[str, ...]], Mapping[str, ValueList]],
        *,
        time: str | None = None,
        strict: bool = True,
    ) -> RuleBook:
        """Read and check rules; those that are off are only counted in the version.

        ``strict`` is False where a rule that does not fit is left out and named in ``broken``: scoring goes on.

        Raises ``SettingError`` that names the rule, if one does not fit.
        """
        rules, broken = [], {}
        for section in sections:
            if section.state == "off":
                continue
            try:
                rules.append(Rule(section, read_condition(section, names)))
            except SettingError as error:
                if strict:
                    raise
                broken[section.name] = str(error)
        return cls(tuple(rules), names, lists, version_of(sections), broken, time)


def read_condition(section: RuleSection, names: Names) -> Condition:
    """The condition of a rule.

    Raises ``SettingError`` that names the rule.
    """
    try:
        return Condition.read(section.when, names)
    except SettingError as error:
        raise SettingError(f"The rule {section.name!r}: {error}") from None

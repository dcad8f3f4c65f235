"""What is kept of entities, where it lies on disk and only what has changed since is held in memory.

A folder that is never changed (``StateFolder``) holds the past as it was when the folder was written; ``Spilled`` lays
over it what came since. Writing makes another folder, see ``detector.features.spill``.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from itertools import repeat
from typing import Any, Generic, Protocol, TypeVar, cast

import numpy as np

Value = TypeVar("Value")
Held = TypeVar("Held", bound=Any)

_UTF = ("utf-8", "surrogatepass")
HASHED = 4
BESIDE = 150
"""Bytes that an entity takes in memory beside its events: its name, and a place for both."""


class Lookup(Protocol):
    """A folder to look things up in: bytes by bytes."""

    def get(self, key: bytes) -> bytes | None:
        """What is kept under a key."""
        ...

    def many(self, keys: list[bytes]) -> list[bytes | None]:
        """What is kept under each of several keys, fastest where they are sorted."""
        ...

    def items(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """All keys that begin like this, in order."""
        ...


class EmptyLookup:
    """A folder without anything."""

    def get(self, key: bytes) -> bytes | None:  # noqa: ARG002 - as ``Lookup``
        """Nothing."""
        return None

    def many(self, keys: list[bytes]) -> list[bytes | None]:
        """Nothing of each."""
        return [None] * len(keys)

    def items(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:  # noqa: ARG002
        """Nothing."""
        return iter(())


NOWHERE = EmptyLookup()


class Spilled(MutableMapping[str, Value], Generic[Value]):
    """One kind of thing by entity: a dictionary whose older part lies in a folder.

    - ``base``: the folder.
    - ``number``: which of the things in it.
    - ``packs``, ``unpacks``: how a value becomes bytes and comes back.
    """

    def __init__(
        self, base: Lookup, number: int, packs: Callable[[Value], bytes], unpacks: Callable[[bytes], Value]
    ) -> None:
        self.base = base
        self.number = number
        self.packs, self.unpacks = packs, unpacks
        self.changed: dict[str, Value | None] = {}
        """What is no longer as in the folder; None where it is gone."""
        self.added = 0
        """How many were set since somebody has counted, at most."""
        self._prefix = bytes([number])

    def copy(self) -> Spilled[Value]:
        """The same, to be changed apart; the folder is shared."""
        other = Spilled(self.base, self.number, self.packs, self.unpacks)
        other.changed, other.added = dict(self.changed), self.added
        return other

    def rebase(self, base: Lookup) -> None:
        """Go on from a folder that holds what has changed.

        Whoever reads meanwhile finds the same: the folder comes first, and holds what is then let go.
        """
        self.base = base
        self.changed = {}

    def many(self, names: Sequence[str], default: Held) -> list[Value | Held]:
        """The values of several entities, looked up together."""
        found = list(map(self.changed.get, names, repeat(_UNCHANGED)))
        places = [at for at, value in enumerate(found) if value is _UNCHANGED]
        wanted = sorted(zip(keys_of(self.number, [names[at] for at in places]), places, strict=True))
        for (_, at), packed in zip(wanted, self.base.many([key for key, _ in wanted]), strict=True):
            found[at] = None if packed is None else self.unpacks(packed)
        return [default if value is None else value for value in found]

    def changes(self) -> Iterator[tuple[bytes, bytes | None]]:
        """What a folder must be told to hold the same."""
        for key, value in zip(keys_of(self.number, self.changed), self.changed.values(), strict=True):
            yield key, None if value is None else self.packs(value)

    def key(self, name: str) -> bytes:
        """What an entity is kept under; see ``key_of``."""
        return key_of(self.number, encoded(name))

    def __getitem__(self, name: str) -> Value:
        if (value := self.changed.get(name, _UNCHANGED)) is _UNCHANGED:
            packed = self.base.get(self.key(name))
            value = None if packed is None else self.unpacks(packed)
        if value is None:
            raise KeyError(name)
        return cast("Value", value)

    def __setitem__(self, name: str, value: Value) -> None:
        self.changed[name] = value
        self.added += 1

    def update(self, other: Any = (), /, **kwargs: Value) -> None:
        """As of a dictionary."""
        given = dict(other, **kwargs)
        self.changed.update(given)
        self.added += len(given)

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise KeyError(name)
        self.changed[name] = None

    def __contains__(self, name: object) -> bool:
        if (value := self.changed.get(cast("str", name), _UNCHANGED)) is not _UNCHANGED:
            return value is not None
        return isinstance(name, str) and self.base.get(self.key(name)) is not None

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self._each())

    def items(self) -> Any:
        """Names with values, one after another; not a view, and nothing may change meanwhile."""
        return self._each()

    def values(self) -> Any:
        """Values, one after another."""
        return (value for _, value in self.items())

    def __len__(self) -> int:
        return sum(1 for _ in self._each())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mapping) and dict(self.items()) == dict(other.items())

    __hash__ = None  # type: ignore[assignment]  # it changes

    def _each(self) -> Iterator[tuple[str, Value]]:
        for key, packed in self.base.items(self._prefix):
            if (name := name_of(key)) not in self.changed:
                yield name, self.unpacks(packed)
        for name, value in self.changed.items():
            if value is not None:
                yield name, value


_UNCHANGED: Any = object()


def discard(kept: MutableMapping[str, Any], names: Sequence[str]) -> None:
    """Let go of what is kept of some entities, if anything is.

    >>> kept = {"a": 1, "b": 2}
    >>> discard(kept, ["b", "c"])
    >>> kept
    {'a': 1}
    """
    if isinstance(kept, Spilled):
        kept.changed.update(dict.fromkeys(names))
        return
    for name in names:
        kept.pop(name, None)


def count(kept: Mapping[str, Any]) -> int:
    """How many there are; where they lie in a folder, at most how many have come since somebody counted."""
    return kept.added if isinstance(kept, Spilled) else len(kept)


def bytes_in_memory(kept: Mapping[str, bytes]) -> int:
    """About how many bytes of memory events take.

    >>> bytes_in_memory({"a": b"1234"})
    154
    """
    held: Mapping[str, bytes | None] = kept.changed if isinstance(kept, Spilled) else kept
    return BESIDE * len(held) + sum(map(len, filter(None, held.values())))


def key_of(number: int, name: bytes) -> bytes:
    """What something is kept under in a folder: the number of its kind, a hash of the entity's name, and the name.

    The hash spreads entities evenly, so that a folder can be built in parts that do not overlap (see
    ``pipelines.features.spool``); the whole name behind it tells two of one hash apart.
    """
    return b"%c%b%b" % (number, zlib.crc32(name).to_bytes(HASHED, "big"), name)


def keys_of(number: int, names: Iterable[str]) -> list[bytes]:
    """What several entities' things are kept under, the same as ``key_of`` says of each, in less time.

    >>> keys_of(0, ["a", "b"]) == [key_of(0, b"a"), key_of(0, b"b")]
    True
    """
    kind, crc32 = bytes([number]), zlib.crc32
    return [kind + crc32(name).to_bytes(HASHED, "big") + name for name in map(encoded, names)]


def encoded(name: str) -> bytes:
    """A name as bytes, whatever is in it."""
    return name.encode(*_UTF)


def name_of(key: bytes) -> str:
    """The name of the entity that something is kept under.

    >>> name_of(key_of(0, encoded("a card")))
    'a card'
    """
    return key[1 + HASHED :].decode(*_UTF)


def many_of(kept: Mapping[str, Value], names: Sequence[str], default: Value) -> list[Value]:
    """What is kept of each entity, wherever it lies.

    >>> many_of({"a": 1}, ["b", "a"], 0)
    [0, 1]
    """
    if isinstance(kept, Spilled):
        return kept.many(names, default)
    return list(map(kept.get, names, repeat(default)))


def bytes_of(packed: bytes) -> bytes:
    """Events as they lie in a folder, and in memory."""
    return packed


def packed_keys(keys: tuple[Any, ...]) -> bytes:
    """The keys of the events that may still tie, as they lie in a folder."""
    return json.dumps(keys, default=plain).encode()


def unpacked_keys(packed: bytes) -> tuple[Any, ...]:
    """The inverse of ``packed_keys``."""
    return tuple(json.loads(packed))


def plain(key: Any) -> Any:
    """A key as JSON can hold it."""
    return key.item() if isinstance(key, np.generic) else str(key)

"""A YAML file to a checked model; every error in plain words, with its place and its line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails
from yaml.composer import Composer
from yaml.constructor import SafeConstructor
from yaml.cyaml import CParser  # type: ignore[attr-defined]  # its stubs do not say so
from yaml.resolver import Resolver

from detector.errors import SettingError, nearest
from pipelines.config.values import DEFAULT_STORE, Url
from pipelines.row_files import named_as_rows

YamlPath = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)

_PLAIN = {
    "missing": "is required",
    "int_type": "expected a whole number",
    "int_parsing": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "float_parsing": "expected a number",
    "finite_number": "expected a finite number",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
    "string_type": "expected text",
    "path_type": "expected a path",
    "tuple_type": "expected a list, such as [a, b]",
    "list_type": "expected a list, such as [a, b]",
    "model_type": "expected a section with keys of its own, indented below it",
    "model_attributes_type": "expected a section with keys of its own, indented below it",
    "greater_than": "expected more than {gt}",
    "greater_than_equal": "expected at least {ge}",
    "less_than": "expected less than {lt}",
    "less_than_equal": "expected at most {le}",
    "string_too_short": "expected at least {min_length} character(s)",
    "string_too_long": "expected at most {max_length} character(s)",
    "string_pattern_mismatch": "expected letters, digits, dots, dashes and underscores only",
    "literal_error": "expected {expected}",
}
_SECRET = ("url", "uri")

MOST_BYTES = 1_000_000
MOST_VALUES = 100_000
MOST_PLACES = 3


class _Loader(yaml.SafeLoader):
    """YAML 1.2: ``no`` is a country, not false; ``12:30`` a time, not 750. A key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be a word", problem_mark=key.start_mark)
            if key.value in seen:
                problem = f"the key {key.value!r} is given twice; keep one of them"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value)
        values: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return values


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^[-+]?[0-9]+$", list("-+0123456789")),
    ("float", r"^[-+]?(?:\.[0-9]+|[0-9]+\.?[0-9]*)(?:[eE][-+]?[0-9]+)?$", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)


def _whole_number(_: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    if len(node.value) > 100:
        raise yaml.MarkedYAMLError(problem="a number of more than 100 digits", problem_mark=node.start_mark)
    return int(node.value)


_Loader.add_constructor("tag:yaml.org,2002:int", _whole_number)
_Loader.add_constructor("tag:yaml.org,2002:float", lambda _, node: float(node.value))


class _QuickLoader(CParser, _Loader):
    """The same over libyaml, in a tenth of the time.

    libyaml does not join the parts: it has no bound for how deep they lie in one another, and would end the process.
    """

    get_single_node = Composer.get_single_node

    def __init__(self, text: str) -> None:
        CParser.__init__(self, text)
        Composer.__init__(self)
        SafeConstructor.__init__(self)
        Resolver.__init__(self)


def read_settings(file: Path, model: type[Model], *, text: str, needs_secrets: bool = True) -> Model:
    """Read the text of a YAML file as a model.

    - ``file``: the file, for messages; its folder is what relative paths in it are relative to.
    - ``model``: the pydantic model to read it as.
    - ``text``: what ``read_text`` has read.
    - ``needs_secrets``: whether a secret of the alerts whose variable or file is not there is an error at once.

    Raises ``SettingError``: naming the file, and for each mistake its line, its place, what was expected and what was
    received.
    """
    values, lines = _parse(file, text)
    try:
        return model.model_validate(values, context={"folder": file.absolute().parent, "needs_secrets": needs_secrets})
    except ValidationError as error:
        mistakes = _explain(error.errors(include_url=False), model, lines)
    raise SettingError(f"{file} cannot be used:\n" + "\n".join(f"  {mistake}" for mistake in mistakes))


def read_text(file: Path) -> str:
    """The text of a configuration.

    Raises ``SettingError`` if there is no such file, it is no text, far too large, or named as rows are.
    """
    if named_as_rows(file) and file.is_file():
        raise SettingError(
            f"{file} holds rows and is no configuration. Write one with `detector init {file}`; where there is one, "
            f"name the file in its `source.path`, or score it with `--input {file}`."
        )
    try:
        size = file.stat().st_size
        text = file.read_text(encoding="utf-8-sig") if size <= MOST_BYTES else ""
    except FileNotFoundError:
        folder = file.parent
        if not folder.is_dir():
            raise SettingError(f"There is no configuration {file}: there is no folder {folder}.") from None
        others = [other.name for other in folder.iterdir() if other.suffix in (".yaml", ".yml")]
        wanted = folder if file.suffix in (".yaml", ".yml") else file
        hint = nearest(file.name, others) if others else f"Write one with `detector init {wanted}`."
        raise SettingError(f"There is no configuration {file}. {hint}") from None
    except UnicodeDecodeError:
        raise SettingError(f"{file} is not a text file in UTF-8. A configuration is YAML text.") from None
    except OSError as error:
        raise SettingError(f"{file} cannot be read: {error.strerror}.") from None
    if size > MOST_BYTES:
        raise SettingError(f"{file} has {size / 1e6:,.1f} MB. A configuration has a few kilobytes; is it another file?")
    return text


def store_named_in(file: Path) -> str | None:
    """Where a configuration keeps the service's state, though other parts of it cannot be used; None if unclear.

    Text that is no YAML at all stands for one that says nothing of it.
    """
    try:
        values, _ = _parse(file, read_text(file))
    except SettingError:
        values = {}
    section = values.get("service")
    named = section.get("store") if isinstance(section, Mapping) else None
    try:
        return _Place.model_validate(
            {} if named is None else {"store": named}, context={"folder": file.absolute().parent}
        ).store
    except ValidationError:
        return None


class _Place(BaseModel):
    model_config = ConfigDict(validate_default=True)

    store: Url = DEFAULT_STORE


def _parse(file: Path, text: str) -> tuple[Mapping[str, Any], dict[YamlPath, int]]:
    try:
        return _parse_text(file, text)
    except yaml.reader.ReaderError as error:
        raise SettingError(f"{file}: not valid YAML: {' '.join(str(error).split())}.") from None
    except RecursionError:
        raise SettingError(f"{file}: not valid YAML: its sections lie too deep in one another.") from None


def _parse_text(file: Path, text: str) -> tuple[Mapping[str, Any], dict[YamlPath, int]]:
    try:
        try:
            node, values = _load(_QuickLoader(text))
        except yaml.YAMLError:  # Python's reader says better what is wrong
            node, values = _load(_Loader(text))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line if error.problem_mark else None
        where = "" if line is None else f" line {line + 1}"
        unquoted = line is not None and "${" in "".join(text.splitlines()[line : line + 1])
        hint = " Put the value with ${...} in quotes." if unquoted else ""
        raise SettingError(f"{file}{where}: not valid YAML: {error.problem or error.context}.{hint}") from None
    except yaml.YAMLError as error:
        raise SettingError(f"{file}: not valid YAML: {' '.join(str(error).split())}.") from None
    if values is None or node is None:
        raise SettingError(f"{file} is empty. Write a configuration with `detector init {file.parent}`.")
    if not isinstance(values, Mapping):
        raise SettingError(f"{file}: expected keys such as `source:`, received {_shown(values)}.")
    return values, dict(_lines(node, ()))


def _load(loader: _Loader) -> tuple[yaml.Node | None, Any]:
    try:
        node = loader.get_single_node()
        if node is None:
            return None, None
        _check_size(node)
        return node, loader.construct_document(node)
    finally:
        loader.dispose()


def _check_size(root: yaml.Node) -> None:
    """Refuse aliases of aliases, which make a few lines as long as one likes, and those of a part of themselves."""
    sizes: dict[int, int] = {}

    def size_of(node: yaml.Node) -> int:
        known = sizes.get(id(node))
        if known is not None:
            return known
        sizes[id(node)] = MOST_VALUES + 1  # what a part of it finds that is the whole
        parts = node.value if isinstance(node, yaml.CollectionNode) else ()
        inner = (each for part in parts for each in (part if isinstance(part, tuple) else (part,)))
        sizes[id(node)] = found = 1 + sum(size_of(each) for each in inner)
        if found > MOST_VALUES:
            problem = f"with its aliases written out this has more than {MOST_VALUES:,} values"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return found

    size_of(root)


def _lines(node: yaml.Node, place: YamlPath) -> list[tuple[YamlPath, int]]:
    found: list[tuple[YamlPath, int]] = [(place, node.start_mark.line + 1)]
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*place, key.value)
            found += [*_lines(value, inner), (inner, key.start_mark.line + 1)]
    elif isinstance(node, yaml.SequenceNode):
        for position, value in enumerate(node.value):
            found += _lines(value, (*place, position))
    return found


def _explain(errors: Sequence[ErrorDetails], model: type[BaseModel], lines: Mapping[YamlPath, int]) -> list[str]:
    """One line a place; what the members of a union expect is joined by "or"."""
    expected: dict[YamlPath, list[str]] = {}
    received: dict[YamlPath, str] = {}
    for error in errors:
        place, owner = _place(error["loc"], model)
        name = str(place[-1]) if place else ""
        kind, context = error["type"], error.get("ctx", {})
        if kind == "extra_forbidden":
            text = f"is not a key. {nearest(name, owner.model_fields)}{_belongs(place, model)}"
        elif kind == "value_error":
            text = str(context["error"])
        else:
            text = _PLAIN.get(kind, error["msg"]).format(**context)
            if kind != "missing" and name not in _SECRET:
                received[place] = f", received {_shown(error['input'])}"
        expected.setdefault(place, []).append(text)
    return [
        _mistake(place, _line(place, lines), _join(expected[place]) + received.get(place, ""))
        for place in sorted(expected, key=lambda place: _line(place, lines))
    ]


def _belongs(place: YamlPath, model: type[BaseModel]) -> str:
    """In which sections a key that was given in a wrong place is one, those below it first, if they are few."""
    *outer, name = map(str, place)
    found = list(_sections_with(name, model, ()))
    below = [section for section in found if section[: len(outer)] == tuple(outer)]
    shown = [f"`{'.'.join(section)}`" for section in (below if outer and below else found)]
    return f" It is a key of {' and '.join(shown)}." if 0 < len(shown) <= MOST_PLACES else ""


def _sections_with(name: str, section: type[BaseModel], place: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if place and name in section.model_fields:
        yield place
    for key, field in section.model_fields.items():
        if (inner := section_of(field.annotation)) is not None:
            yield from _sections_with(name, inner, (*place, key))


def _mistake(place: YamlPath, line: int, text: str) -> str:
    where = f"line {line}: " + (".".join(map(str, place)) + ": " if place else "")
    return where + text + ("" if text.endswith((".", "?")) else ".")


def _join(texts: Sequence[str]) -> str:
    first, *others = dict.fromkeys(texts)
    return " or ".join([first, *(text.removeprefix("expected ") for text in others)])


def _line(place: YamlPath, lines: Mapping[YamlPath, int]) -> int:
    while place not in lines:
        place = place[:-1]
    return lines[place]


def _place(location: YamlPath, model: type[BaseModel]) -> tuple[YamlPath, type[BaseModel]]:
    """The part of a pydantic location that the file has, without the tags of unions, and its section."""
    place: list[str | int] = []
    owner: type[BaseModel] = model
    inner: type[BaseModel] | None = model
    entries: type[BaseModel] | None = None
    for step in location:
        if isinstance(step, int):
            place.append(step)
            inner, entries = entries or inner, None
        elif entries is not None:
            place.append(step)
            inner, entries = entries, None
        elif inner is not None:
            owner = inner
            place.append(step)
            field = owner.model_fields.get(step)
            inner = section_of(field.annotation) if field else None
            entries = _entries_of(field.annotation) if field else None
    return tuple(place), owner


def _entries_of(annotation: Any) -> type[BaseModel] | None:
    """The section that each entry of a mapping or a list is; None for anything else."""
    origin, given = get_origin(annotation), get_args(annotation)
    return section_of(given[1 if origin is dict else 0]) if origin in (dict, tuple, list) else None


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, also where it may be left out; None for a plain value."""
    if get_origin(annotation) in (dict, tuple, list):
        return None
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str | int | float | bool | list) else type(value).__name__
    text = {"NoneType": "nothing", "dict": "a section", "True": "true", "False": "false"}.get(text, text)
    return text if len(text) <= 60 else text[:57] + "..."

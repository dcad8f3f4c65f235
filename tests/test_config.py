from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
import pytest
from pydantic import BaseModel, Field

from detector.errors import SchemaError, SettingError
from pipelines.config import ColumnsSection, Config, OutputSection, SourceSection, load_config
from pipelines.config.reading import read_settings, read_text, section_of
from pipelines.config.template import HIDDEN, TEMPLATES, render

MINIMAL = "source: {path: data.csv}\n"
Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def _write(text: str) -> Path:
        file = tmp_path / "detector.yaml"
        file.write_text(text, encoding="utf-8")
        return file

    return _write


def every_field(model: type[BaseModel] = Config, place: str = "") -> Iterator[tuple[str, str | None]]:
    for name, field in model.model_fields.items():
        yield f"{place}{name}", field.description
        if (inner := section_of(field.annotation)) is not None:
            yield from every_field(inner, f"{place}{name}.")


@pytest.mark.parametrize(("place", "text"), list(every_field()), ids=lambda value: str(value)[:40])
def test_field_is_documented(place: str, text: str | None) -> None:
    """Every key says what it is in a sentence that ends."""
    assert text, place
    assert text.endswith("."), place


@pytest.mark.parametrize("template", TEMPLATES)
def test_template_holds_every_key_and_its_text(template: str) -> None:
    """The shipped example names and explains every key there is, but for those of rows of another kind."""
    lines = [line.lstrip("# ") for line in render(template).splitlines()]
    words = " ".join(lines)

    for place, text in every_field():
        if any(f"{place}.".startswith(f"{left}.") for left in HIDDEN[template]):
            continue
        name = place.rpartition(".")[2]
        assert any(line.startswith(f"{name}:") for line in lines), place
        assert text is not None
        assert text in words, place


@pytest.mark.parametrize("template", TEMPLATES)
def test_template_says_the_defaults(template: str, write: Write) -> None:
    """What the example sets is what an empty configuration has, but for what the template is about."""
    file = write(render(template))
    plain = Config.model_validate(TEMPLATES[template], context={"folder": file.parent})

    assert load_config(file).model_dump() == plain.model_dump()


def test_template_can_be_switched_on(write: Write) -> None:
    """Taking the "# " away from a section that is off makes it valid."""
    text = render("table")
    start, end = text.index("  # budget:"), text.index("# Where the scores go")
    block = "\n".join(line.replace("  # ", "  ", 1) for line in text[start:end].splitlines())
    config = load_config(write(text[:start] + block + "\n" + text[end:]))

    assert config.policy.budget is not None
    assert config.policy.budget.rows == 100


def test_unknown_template_names_the_nearest() -> None:
    """A misspelt template is named together with the one that was meant."""
    with pytest.raises(SettingError, match=r"no template 'tabel'. Did you mean 'table'\?"):
        render("tabel")


def test_paths_start_at_the_file(write: Write, tmp_path: Path) -> None:
    """Relative paths, given or default, and SQLite files are taken from the folder of the configuration."""
    file = write(MINIMAL + "tracking: {uri: 'sqlite:///runs/mlflow.db'}\n")

    config = load_config(file)

    assert config.source.path == str(tmp_path / "data.csv")
    assert config.output.path == str(tmp_path / "scores.parquet")
    assert config.bundle == tmp_path / "bundle"
    assert config.tracking.uri == f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert config.file == file


def test_load_takes_a_folder(write: Write) -> None:
    """The folder of a detector.yaml stands for it."""
    assert load_config(write(MINIMAL).parent).file is not None


def test_absolute_paths_and_home_stay(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """An absolute path is kept and ~ is the home folder."""
    monkeypatch.setenv("HOME", "/home/ann")

    config = load_config(write("source: {path: ~/data/*.csv}\nbundle: /srv/bundle\n"))

    assert config.source.path == "/home/ann/data/*.csv"
    assert str(config.bundle) == "/srv/bundle"


def test_variables_are_expanded_and_escaped(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password from the environment may hold any sign; a variable elsewhere is taken as it is."""
    monkeypatch.setenv("PASSWORD", "p@ss/word")
    monkeypatch.setenv("ADDRESS", "db:5432")

    config = load_config(write("source: {url: 'postgresql://ann:${PASSWORD}@${ADDRESS}/bank', table: payments}\n"))

    assert config.source.url == "postgresql://ann:p%40ss%2Fword@db:5432/bank"


def test_passwords_are_not_shown(write: Write) -> None:
    """Neither the text of a configuration nor its plain values hold a password."""
    url = "postgresql://ann:s3cret@db/bank?sslpassword=hidden1"
    config = load_config(
        write(f"source: {{url: '{url}', table: payments}}\ntracking: {{uri: 'http://ann:s3cret@ml'}}\n")
    )

    for text in (repr(config), str(config.source), str(config.to_dict())):
        assert "s3cret" not in text
        assert "hidden1" not in text
    assert config.source.url == url


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINIMAL + "trian: {}\n", r"line 2: trian: is not a key. Did you mean 'train'\?"),
        (MINIMAL + "fdr: 0.1\n", r"line 2: fdr: is not a key\. Known: .*\. It is a key of `policy`\."),
        (
            MINIMAL + "train:\n  autoencoder:\n    epochs: 3\n",
            r"line 4: train.autoencoder.epochs: is not a key\. .* It is a key of `train.autoencoder.training`\.",
        ),
        (
            MINIMAL + "train:\n  autoencoder:\n    training:\n      epoks: 3\n",
            r"line 5: train.autoencoder.training.epoks: is not a key. Did you mean 'epochs'\?",
        ),
        (
            MINIMAL + "train:\n  autoencoder:\n    training:\n      epochs: many\n",
            r"line 5: train.autoencoder.training.epochs: expected a whole number, received 'many'\.",
        ),
        (MINIMAL + "train: {rows: 0}\n", r"train.rows: expected more than 0, received 0"),
        (MINIMAL + "columns: {others: guess}\n", r"expected 'infer' or 'ignore', received 'guess'"),
        (MINIMAL + "train: {autoencoder: {hidden: 3}}\n", r"expected a list, such as \[a, b\], received 3"),
        (MINIMAL + "columns: 5\n", r"columns: expected a section with keys of its own"),
        (MINIMAL + "policy: {}\n", r"policy: expected `fdr`, `quantile` or `budget`"),
        (MINIMAL + "policy: {budget: {per: day}}\n", r"policy.budget.rows: is required"),
        (MINIMAL + "name: a b\n", r"name: expected letters, digits"),
        (MINIMAL + "train: {autoencoder: {enabled: 7}}\n", r"enabled: expected true or false, received 7"),
        ("name: x\n", r"line 1: source: is required"),
        ("source: {}\n", r"expected `path` \(files\), `url`"),
        ("source: {path: a.csv, table: b}\n", r"`table` and `query` belong to a database"),
        ("source: {url: 'sqlite:///x.db'}\n", r"a database needs either `table` or `query`"),
        ("source: {url: x.db, table: y}\n", r"source.url: expected a URL, such as sqlite:///data.db"),
        ("source: {path: a.csv, encoding: utf-9}\n", r"expected an encoding such as utf-8"),
        ("source: {path: ''}\n", r"expected a path, received empty text"),
        ("source: {path: '${NO_SUCH_VARIABLE}/a.csv'}\n", r"variable NO_SUCH_VARIABLE is not set"),
        (MINIMAL + "output: {url: 'sqlite:///x.db'}\n", r"a database needs both `url` and `table`"),
        (MINIMAL + "output: {path: a.csv, quarantine: a.csv}\n", r"are the same file"),
        (MINIMAL + "output: {path: data.csv}\n", r"`output` would replace the file that `source` reads"),
        (
            "source: {url: 'sqlite:///x.db', table: t}\noutput: {url: 'sqlite:///x.db', table: t}\n",
            r"would append to the table that `source` reads",
        ),
        (
            MINIMAL + "train: {autoencoder: {enabled: no}, forest: {enabled: no}, neighbours: {enabled: no}}\n",
            r"all disabled",
        ),
        ("source: {path: a.csv\nname: x\n", r"detector.yaml line 2: not valid YAML: expected ',' or '}'"),
        (MINIMAL + MINIMAL, r"line 2: not valid YAML: the key 'source' is given twice"),
        ("source: @\n", r"line 1: not valid YAML: found character '@'"),
        ("- a\n", r"expected keys such as `source:`, received \['a'\]"),
        ("\n", r"is empty. Write a configuration with `detector init"),
        ("source: !!python/object:os.system {}\n", r"not valid YAML: could not determine a constructor"),
    ],
)
def test_mistake_is_named(write: Write, text: str, message: str) -> None:
    """A mistake is reported in plain words, with its place and its line."""
    with pytest.raises(SettingError, match=message):
        load_config(write(text))


class Either(BaseModel):
    """A number or a word."""

    share: Annotated[float, Field(le=0.5)] | Literal["auto"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("high", r"share: expected a number or 'auto', received 'high'\."),
        ("0.7", r"share: expected at most 0.5 or 'auto', received 0.7\."),
    ],
)
def test_either_of_two_kinds_is_one_mistake(write: Write, value: str, message: str) -> None:
    """Where a key takes a number or a word, one line says both."""
    file = write(f"share: {value}\n")
    with pytest.raises(SettingError, match=message) as caught:
        read_settings(file, Either, text=read_text(file))

    assert str(caught.value).count("share") == 1


def test_all_mistakes_are_named_at_once(write: Write) -> None:
    """The second mistake does not wait for the first to be mended."""
    with pytest.raises(SettingError) as caught:
        load_config(write(MINIMAL + "sede: 1\ntrain: {rows: x, epochs: 3}\n"))

    text = str(caught.value)
    assert all(word in text for word in ("sede", "train.rows", "train.epochs"))
    assert text.index("sede") < text.index("train.rows")


def test_wrong_url_is_not_repeated(write: Write) -> None:
    """A URL that cannot be read may hold a password, so the error does not show it."""
    with pytest.raises(SettingError) as caught:
        load_config(write("source: {url: ['ann:s3cret@db'], table: x}\n"))

    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("detectr.yaml", r"no configuration .*detectr.yaml. Did you mean 'detector.yaml'\?"),
        ("nowhere/detector.yaml", r"there is no folder .*nowhere"),
    ],
)
def test_missing_file_names_the_nearest(write: Write, name: str, message: str) -> None:
    """A configuration that is not there is an error that names one that is."""
    folder = write(MINIMAL).parent

    with pytest.raises(SettingError, match=message):
        load_config(folder / name)


def test_missing_file_in_an_empty_folder_tells_of_init(tmp_path: Path) -> None:
    """Where there is no configuration at all, the error says how to get one."""
    with pytest.raises(SettingError, match="Write one with `detector init"):
        load_config(tmp_path)


def test_binary_file_is_named(tmp_path: Path) -> None:
    """A file that is no text is an error that says so."""
    (tmp_path / "detector.yaml").write_bytes(b"\xff\xfe\x00\x80")

    with pytest.raises(SettingError, match="not a text file in UTF-8"):
        load_config(tmp_path)


def test_words_of_yaml_1_1_stay_words(write: Write) -> None:
    """Norway is not false, a time is not a number in base 60, and 2e-3 is a number."""
    config = load_config(write(MINIMAL + "columns: {ignore: [no, on, 12:30, 7]}\ntrain: {clean_share: 2e-3}\n"))

    assert config.columns.ignore == ("no", "on", "12:30", "7")
    assert config.train.clean_share == 2e-3


def test_config_is_frozen(write: Write) -> None:
    """Settings cannot change under a running job."""
    config = load_config(write(MINIMAL))

    with pytest.raises(ValueError, match="frozen"):
        config.name = "other"  # type: ignore[misc]


def test_at_keeps_how_files_are_read() -> None:
    """Another input is read with the same separator; another output gets its own quarantine."""
    source = SourceSection(url="sqlite:///x.db", table="t", separator=";").at("new.csv")
    output = OutputSection(path="a.csv", quarantine="q.csv").at("out/new.csv")

    assert (source.path, source.url, source.separator) == ("new.csv", None, ";")
    assert output.quarantine_path == Path("out/new.quarantine.csv")


def test_quarantine_of_a_table_is_named_after_it() -> None:
    """Scores in a database leave the quarantine in a file with the table's name."""
    assert OutputSection(url="sqlite:///x.db", table="t").quarantine_path == Path("t.quarantine.csv")


@pytest.fixture
def frame() -> pd.DataFrame:
    return pd.DataFrame({"id": [1, 2], "amount": ["3.5", "4"], "postcode": [80331, 10115], "shop": ["a", "b"]})


def test_schema_keeps_what_is_named_and_guesses_the_rest(frame: pd.DataFrame) -> None:
    """A named kind wins over a guess, and unnamed columns are guessed."""
    schema = ColumnsSection(key="id", categorical=("postcode",)).schema_of(frame)

    assert schema.key == "id"
    assert schema.numeric == ("amount",)
    assert schema.categorical == ("postcode", "shop")


def test_schema_leaves_others_out_when_asked(frame: pd.DataFrame) -> None:
    """With ``others: ignore`` only named columns are features."""
    assert ColumnsSection(numeric=("amount",), others="ignore").schema_of(frame).features == ("amount",)


@pytest.mark.parametrize("section", [ColumnsSection(numeric=("amuont",)), ColumnsSection(ignore=("amuont",))])
def test_schema_names_a_missing_column(frame: pd.DataFrame, section: ColumnsSection) -> None:
    """A misspelt column is named together with the nearest one."""
    with pytest.raises(SchemaError, match=r"'amuont' is missing from the table. Did you mean 'amount'\?"):
        section.schema_of(frame)


BOMB = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" if n else "a0: &a0 [x, x]" for n in range(12))
MERGES = "\n".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" if n else "a0: &a0 {x: 1}" for n in range(12)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, r"line \d+: not valid YAML: with its aliases written out this has more than 100,000 values"),
        (MERGES, r"line \d+: not valid YAML: with its aliases written out"),
        ("source: &a {path: *a}\n", r"line 1: not valid YAML: with its aliases written out"),
        ("source: " + "[" * 50_000, "its sections lie too deep in one another"),
        ("name: " + "1" * 5_000, "line 1: not valid YAML: a number of more than 100 digits"),
        ("? [a, b]\n: c\n", "line 1: not valid YAML: a key must be a word"),
        ("# " + "x" * 1_100_000, "has 1.1 MB. A configuration has a few kilobytes"),
        ("name: a\x00b", "not valid YAML"),
    ],
    ids=["bomb", "merges", "itself", "deep", "number", "key", "large", "nul"],
)
def test_text_that_is_no_configuration_is_refused_at_once(write: Write, text: str, message: str) -> None:
    """Whatever the text, one message that names the file and the line, in the time that a file takes to read."""
    began = time.monotonic()

    with pytest.raises(SettingError, match=message):
        load_config(write(text))

    assert time.monotonic() - began < 5


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet"])
def test_rows_that_are_given_as_configuration_are_refused_with_what_to_do(name: str, tmp_path: Path) -> None:
    """Who types `detector score rows.csv` is told where rows are named."""
    (tmp_path / name).write_bytes(b"a,b\n1,2\n\xff")

    with pytest.raises(SettingError, match=r"holds rows and is no configuration.*detector init.*--input"):
        load_config(tmp_path / name)


def test_aliases_may_be_used(write: Write) -> None:
    """A part that is written once and used twice is no bomb."""
    config = load_config(write(f"{MINIMAL}columns: {{numeric: &some [a, b], ignore: [c]}}\nalerts: {{shown: *some}}\n"))

    assert config.alerts.shown == ("a", "b")


def test_a_job_is_said_in_a_word(tmp_path: Path) -> None:
    """When it runs, or that it does not; what is no time is refused by its line."""
    file = tmp_path / "detector.yaml"
    source = "source: {path: rows.csv}\nservice:\n  jobs:\n"
    file.write_text(f"{source}    score: every 10s\n    retrain: false\n    drift: {{when: every 2h}}\n")

    jobs = load_config(file).service.jobs

    assert (jobs.score.when, jobs.score.enabled) == ("every 10s", True)
    assert (jobs.retrain.when, jobs.retrain.enabled) == ("0 3 * * sun", False)
    assert jobs.drift.when == "every 2h"
    file.write_text(f"{source}    score: sometimes\n")
    with pytest.raises(SettingError, match=r"line 4: service\.jobs\.score"):
        load_config(file)

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from rich.progress import Progress
from rich.table import Table
from typer.testing import CliRunner

from detector.errors import BundleError, DetectorError, SchemaError, SettingError, SinkError, SourceError
from pipelines.cli import app
from pipelines.progress import phases, progress

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = ["init", "train", "score", "evaluate", "doctor", "demo", "simulate transactions"]
HEAVY = ("tensorflow", "keras", "sklearn", "mlflow", "matplotlib", "onnxruntime", "pandas", "pyarrow", "sqlalchemy")

Job = Callable[..., Any]


def run(*arguments: str | Path) -> Any:
    return CliRunner(env={"DETECTOR_DEBUG": None}).invoke(app, [str(argument) for argument in arguments])


def run_apart(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipelines", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "data.csv").write_text("id,amount\n" + "".join(f"T{n},{n % 9}\n" for n in range(600)))
    file = tmp_path / "detector.yaml"
    file.write_text("source: {path: data.csv}\ncolumns: {key: id}\ntracking: {enabled: false}\n")
    return file


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Job], None]:
    """Put a plain function in the place of a job."""
    rooms = {"score": "scoring.one_off", "train": "training.train"}

    def _put(name: str, job: Job) -> None:
        place = f"pipelines.{rooms[name]}"
        module = ModuleType(place)
        setattr(module, name, job)
        monkeypatch.setitem(sys.modules, place, module)

    return _put


def failing(error: BaseException) -> Job:
    def _job(*_: Any, **__: Any) -> None:
        raise error

    return _job


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str) -> None:
    """Each command says in a sentence what it does, and shows a line to copy."""
    result = run(*command.split(), "--help")

    assert result.exit_code == 0
    assert f"Example: detector {command}" in " ".join(result.output.split())


def test_help_lists_all_commands() -> None:
    """The first help names every command and the first steps."""
    result = run("--help")

    assert result.exit_code == 0
    assert all(command.split()[0] in result.output for command in COMMANDS)
    assert "detector demo" in result.output


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["score", "--help"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    """Asking for help waits for no package that the work needs."""
    code = (
        f"import sys; from pipelines.cli import app; app({arguments}, standalone_mode=False); "
        f"print('loaded', [name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)

    assert "loaded []" in done.stdout, done.stdout + done.stderr


def test_version_is_that_of_the_package() -> None:
    """The version comes from the installed package."""
    result = run("--version")

    assert result.exit_code == 0
    assert result.output.startswith("detector ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["trian"],
        ["score"],
        ["score", "detector.yaml", "--imput", "x"],
        ["evaluate", "detector.yaml"],
        ["init", "x", "--template", "tabel"],
        ["simulate", "transactions", "--rows", "0", "--out", "x.csv"],
        ["simulate", "transactions", "--rows", "many", "--out", "x.csv"],
    ],
)
def test_wrong_command_line_is_usage(arguments: list[str]) -> None:
    """A command line that means nothing ends with 2 and says how to get help."""
    result = run(*arguments)

    assert result.exit_code == 2
    assert "--help" in result.output or "-h" in result.output


def test_init_writes_a_configuration_that_loads(tmp_path: Path) -> None:
    """What init writes is read without complaint; it is not replaced unless asked for."""
    assert run("init", tmp_path / "new").exit_code == 0
    file = tmp_path / "new" / "detector.yaml"
    file.write_text("mine")

    again = run("init", tmp_path / "new", "--template", "table")
    forced = run("init", tmp_path / "new", "--force")

    assert (again.exit_code, forced.exit_code) == (2, 0)
    assert "is there already" in again.output
    assert "source:" in file.read_text()
    assert f"detector doctor {file}" in "".join(forced.output.split("\n"))


def test_init_where_nothing_can_be_written(tmp_path: Path) -> None:
    """A folder that cannot be made is a failure with a message."""
    (tmp_path / "x").write_text("")

    result = run("init", tmp_path / "x" / "new")

    assert result.exit_code == 1
    assert "cannot be written" in result.output


@pytest.mark.parametrize("command", ["train", "score", "doctor", "evaluate"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "There is no configuration"),
        ("sauce: 1\n", "sauce: is not a key. Did you mean 'source'?"),
        ("source: {path: [}\n", "line 1: not valid YAML"),
    ],
)
def test_wrong_configuration_is_usage(tmp_path: Path, command: str, text: str | None, message: str) -> None:
    """A missing, misspelt or broken configuration ends with 2 and says what is wrong with it."""
    file = tmp_path / "detector.yaml"
    if text is not None:
        file.write_text(text)

    result = run(command, file, *(["--input", "x.csv"] if command == "evaluate" else []))

    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SettingError("no such setting"), 2),
        (SchemaError("no such column"), 2),
        (SourceError("no such file"), 1),
        (SinkError("disk full"), 1),
        (BundleError("changed byte"), 1),
        (DetectorError("anything"), 1),
    ],
)
def test_error_of_a_job_is_a_message_and_a_code(
    config: Path, stand_in: Callable[[str, Job], None], error: DetectorError, code: int
) -> None:
    """What is wrong with the settings ends with 2, what fails with 1; both say why on standard error."""
    stand_in("train", failing(error))

    result = run("train", config)

    assert result.exit_code == code
    assert result.stderr.strip() == str(error)
    assert result.stdout == ""


def test_unexpected_error_says_how_to_see_more(config: Path, stand_in: Callable[[str, Job], None]) -> None:
    """A bug ends with 1, its name, and how to get the traceback."""
    stand_in("train", failing(ZeroDivisionError("division by zero")))

    result = run("train", config)

    assert result.exit_code == 1
    assert "ZeroDivisionError: division by zero" in result.stderr
    assert "--debug" in result.stderr


@pytest.mark.parametrize("error", [SourceError("no such file"), ZeroDivisionError("division by zero")])
def test_debug_shows_the_traceback(config: Path, stand_in: Callable[[str, Job], None], error: Exception) -> None:
    """With --debug an error comes as it was raised."""
    stand_in("train", failing(error))

    assert run("--debug", "train", config).exception is error


def test_debug_by_the_environment(tmp_path: Path) -> None:
    """DETECTOR_DEBUG=1 is the same as --debug, and without it there is no traceback."""
    plain = run_apart("train", tmp_path / "nowhere.yaml")
    debugged = run_apart("train", tmp_path / "nowhere.yaml", DETECTOR_DEBUG="1")

    assert (plain.returncode, "Traceback" in plain.stderr) == (2, False)
    assert "Traceback" in debugged.stderr
    assert "SettingError" in debugged.stderr


def test_interrupt_ends_quietly(config: Path, stand_in: Callable[[str, Job], None]) -> None:
    """Ctrl-C ends with 130 and no words."""
    stand_in("train", failing(KeyboardInterrupt()))

    result = run("train", config)

    assert result.exit_code == 130
    assert result.output == ""


def test_interrupt_of_a_process_ends_quietly(tmp_path: Path) -> None:
    """The signal that Ctrl-C sends ends a running job with 130 and no traceback."""
    code = (
        "import sys, time, types; module = types.ModuleType('pipelines.demo.transactions');"
        "module.run_demo = lambda *a, **k: (print('started', flush=True), time.sleep(60));"
        "sys.modules['pipelines.demo.transactions'] = module; from pipelines.cli import app; app(['demo'])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    time.sleep(0.1)

    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=20)

    assert process.returncode == 130
    assert "Traceback" not in complaint


def test_summary_is_printed_as_it_is(config: Path, stand_in: Callable[[str, Job], None]) -> None:
    """Text with brackets is no markup; tables are drawn."""
    table = Table("column")
    table.add_row("value")
    report = SimpleNamespace(summary=lambda: ["Flagged [red] 3 rows", table])
    stand_in("train", lambda settings, *, now: report)

    result = run("train", config)

    assert "Flagged [red] 3 rows" in result.output
    assert "value" in result.output


def test_score_passes_its_options(config: Path, stand_in: Callable[[str, Job], None]) -> None:
    """The job gets the input and the output, and the time with its zone."""
    seen: dict[str, Any] = {}

    def _score(settings: Any, **options: Any) -> Any:
        seen.update(options, name=settings.name)
        return SimpleNamespace(summary=lambda: "done")

    stand_in("score", _score)

    result = run("score", config.parent, "--input", "a.csv", "--output", "b.csv")

    assert result.output == "done\n"
    assert (seen["input"], seen["output"], seen["name"]) == ("a.csv", "b.csv", "transactions")
    assert seen["now"].tzinfo is not None


@pytest.mark.parametrize(
    "options", [["--input", "x.csv", "--output", "./x.csv"], ["--output", "data.csv"], ["--input", "scores.parquet"]]
)
def test_score_does_not_replace_its_input(config: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]) -> None:
    """An output that is the input is refused before anything is read."""
    monkeypatch.chdir(config.parent)

    result = run("score", config, *options)

    assert result.exit_code == 2
    assert "are the same file" in result.output


def test_doctor_that_finds_nothing_wrong(config: Path) -> None:
    """A sound configuration ends with 0 and a table of what was seen."""
    result = run("doctor", config)

    assert result.exit_code == 0
    assert "0 problems." in result.stdout
    assert "columns.key" in result.stdout


def test_doctor_that_finds_a_problem(config: Path) -> None:
    """Any problem ends with 1, and the table says what to do."""
    config.write_text(config.read_text().replace("key: id", "key: idd"))

    result = run("doctor", config)

    assert result.exit_code == 1
    assert "Did you mean 'id'?" in result.stdout


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_simulate_writes_the_same_data_for_the_same_seed(tmp_path: Path, name: str) -> None:
    """Simulated rows depend on the seed only."""
    for folder in ("one", "two"):
        file = tmp_path / folder / name
        result = run("simulate", "transactions", "--rows", "300", "--seed", "7", "--out", file)
        assert result.exit_code == 0, result.output

    assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    read = pd.read_csv if name.endswith("csv") else pd.read_parquet
    assert len(read(tmp_path / "one" / name)) == 300


def test_simulate_to_an_unknown_format(tmp_path: Path) -> None:
    """A suffix that means nothing is usage."""
    result = run("simulate", "transactions", "--rows", "10", "--out", tmp_path / "a.xlsx")

    assert result.exit_code == 2
    assert ".parquet or a .csv" in result.output


def test_pipe_that_closes_early_is_quiet(config: Path) -> None:
    """``detector doctor | head -1`` ends without a traceback."""
    command = f"'{sys.executable}' -m pipelines doctor '{config}' | head -1"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)

    assert "Traceback" not in done.stderr


# Progress


def test_progress_in_a_log_is_two_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """Where nobody watches, the start and the end are reported, with what was done."""
    with progress("Scoring", total=1_500) as advance:
        advance(1_000)
        advance(500)

    captured = capsys.readouterr()
    assert captured.out == ""
    first, last = captured.err.splitlines()
    assert first == "Scoring …"
    assert last.startswith("Scoring: 1,500 rows in ")


def test_progress_on_a_terminal_is_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks inside each other share a screen, and totals that were guessed wrong do no harm."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)

    with progress("Outer", total=2) as outer, progress("Inner", total=None) as inner:
        inner(5)
        outer(3)

    shown = capsys.readouterr().err
    assert "Outer" in shown
    assert "Inner" in shown
    assert "3/3" in shown
    assert "0/?" not in shown
    assert "5/?" not in shown

    with progress("Logging", total=None):
        pass

    uncounted = capsys.readouterr().err
    assert "Logging" in uncounted
    assert "━" not in uncounted
    assert "1/1" not in uncounted


def test_phases_are_named_on_a_terminal_and_counted_in_a_log(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A phase shows while it lasts, with its own count; epochs of two networks add up."""

    def work() -> str:
        with phases("Training", unit="epochs") as step:
            step("isolation forest", 0, 1)
            for network, epochs in (("bulk", 2), ("autoencoder", 3)):
                for epoch in range(1, epochs + 1):
                    step(network, epoch, epochs)
        return capsys.readouterr().err

    assert work().splitlines()[-1].startswith("Training: 5 epochs in ")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    shown: list[tuple[str, float | None]] = []
    add = Progress.add_task
    monkeypatch.setattr(Progress, "add_task", lambda bar, name, total: (shown.append((name, total)), add(bar, name))[1])
    work()

    assert shown == [("Training", None), ("  isolation forest", None), ("  bulk", 2), ("  autoencoder", 3)]


def test_progress_of_a_failed_block_does_not_say_done(capsys: pytest.CaptureFixture[str]) -> None:
    """The line that tells the end is not written when the work broke off."""
    with pytest.raises(RuntimeError, match="power cut"), progress("Scoring"):
        raise RuntimeError("power cut")

    assert capsys.readouterr().err == "Scoring …\n"

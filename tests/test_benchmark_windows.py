"""The benchmark of windows, in small."""

from __future__ import annotations

import json

import pytest

from benchmarks.windows import main


@pytest.mark.slow
def test_benchmark_prints_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    """The last line is JSON; nothing of TensorFlow is loaded where windows are scored."""
    main(["--train", "20", "--windows", "300", "--epochs", "1", "--runs", "1"])

    found = json.loads(capsys.readouterr().out.splitlines()[-1])

    assert found["windows_per_second"] > 0
    assert {"encoder": "conv1d", "timesteps": 64, "sensors": 8, "tensorflow": False}.items() <= found.items()

"""Input that the system does not let be read for a while: it is named, holds up nothing, and is scored later."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks.soak import Site, draw
from detector.errors import SourceError
from tests.service_sites import back_date, put, score, states


@pytest.fixture
def site(tiny_bundle: Path, tmp_path: Path) -> Site:
    return Site(tmp_path / "site", tiny_bundle, "files to files")


@contextmanager
def forbidden(place: Path) -> Iterator[None]:
    """Nobody may read a file, or list a folder; permissions would not keep the root user out."""
    opened, iterated = Path.open, Path.iterdir

    def refuse(path: Path) -> None:
        if path == place:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    def guarded_open(path: Path, *args: Any, **given: Any) -> Any:
        refuse(path)
        return opened(path, *args, **given)

    def guarded_iterdir(path: Path) -> Any:
        refuse(path)
        return iterated(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "open", guarded_open)
        patch.setattr(Path, "iterdir", guarded_iterdir)
        yield


@pytest.mark.parametrize("age", [10.0, 1_000_000.0])
def test_file_that_may_not_be_read_is_scored_once_it_may(site: Site, age: float) -> None:
    """However old it is; others are scored meanwhile, and it is said once."""
    put(site, "a.csv", 0, 20, age=age)
    put(site, "b.csv", 20, 10)
    with forbidden(site.input / "a.csv"):
        first, second = score(site), score(site)

    assert (first.rows, second.rows) == (10, 0)
    assert "a.csv cannot be read: Permission denied" in first.note
    assert "a.csv" not in second.note
    assert states(site)["a.csv"][0] == "unreadable"
    assert score(site).rows == 20
    assert states(site)["a.csv"][0] == "scored"


def test_file_that_was_scored_and_may_not_be_read_is_not_scored_anew(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """What is known of it stays, so that only its new rows are scored once it may be read."""
    first = put(site, "a.csv", 0, 20)
    score(site)
    path = site.input / "a.csv"
    path.write_text(path.read_text() + draw(5, first=20, seed=1).to_csv(index=False, header=False))
    back_date(path, 1_000)
    with forbidden(path):
        assert score(site).rows == 0

    assert "a.csv cannot be read: Permission denied" in caplog.text
    assert len(first) == 20
    assert score(site).rows == 5


def test_folder_that_may_not_be_read_is_named(site: Site) -> None:
    """In an error of our own, with the setting that names it."""
    put(site, "a.csv", 0, 20)
    with (
        forbidden(site.input),
        pytest.raises(SourceError, match=r"cannot be read: Permission denied\. .*`source\.path`"),
    ):
        score(site)

    assert score(site).rows == 20

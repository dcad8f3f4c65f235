"""A small picture of how the risk went, as PNG without a plotting library: a mail is written by the scoring service."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT, MARGIN = 960, 200, 14
_PAPER, _GRID, _GREY, _RED = (255, 255, 255), (226, 226, 226), (120, 130, 140), (190, 30, 30)


def course_png(course: Sequence[Sequence[Any]]) -> bytes:
    r"""Points of risk over time, flagged ones red and larger; empty where there are fewer than two.

    Parameters
    ----------
    course : sequence of (seconds, risk, flagged)
        In order of time.

    >>> course_png([[0.0, 1.0, False], [60.0, 9.0, True]])[:4]
    b'\x89PNG'
    """
    if len(course) < 2:
        return b""
    picture = np.empty((HEIGHT, WIDTH, 3), dtype=np.uint8)
    picture[:] = _PAPER
    seconds = np.array([float(point[0]) for point in course])
    risk = np.array([float(point[1]) for point in course])
    across = MARGIN + (WIDTH - 2 * MARGIN) * _scaled(seconds)
    down = HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * _scaled(risk)
    for line in np.linspace(MARGIN, HEIGHT - MARGIN, 4).astype(int):
        picture[line, MARGIN : WIDTH - MARGIN] = _GRID
    for i in range(len(course) - 1):
        steps = int(max(abs(across[i + 1] - across[i]), abs(down[i + 1] - down[i]), 1)) * 2
        x = np.linspace(across[i], across[i + 1], steps).astype(int)
        y = np.linspace(down[i], down[i + 1], steps).astype(int)
        picture[y, x] = picture[np.minimum(y + 1, HEIGHT - 1), x] = _GREY
    for x, y, point in zip(across, down, course, strict=True):
        _dot(picture, int(x), int(y), 8 if point[2] else 4, _RED if point[2] else _GREY)
    return _png(picture)


def _scaled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    span = values.max() - values.min()
    return (values - values.min()) / span if span > 0 else np.full(len(values), 0.5)


def _dot(picture: NDArray[np.uint8], x: int, y: int, radius: int, colour: tuple[int, int, int]) -> None:
    rows, columns = np.ogrid[: picture.shape[0], : picture.shape[1]]
    picture[(rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = colour


def _png(picture: NDArray[np.uint8]) -> bytes:
    height, width, _ = picture.shape
    lines = np.hstack([np.zeros((height, 1), np.uint8), picture.reshape(height, width * 3)])
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    chunks = [struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)

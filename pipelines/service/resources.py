"""How much disk there is where the service writes, and how much memory it may take."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa

from pipelines.config import Config

_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Of a container, as the two versions of control groups say it; outside of one there is neither, or it says "max"."""


def resources_of(folder: Path) -> Iterator[tuple[str, str, float]]:
    """Name, meaning and value of the figures of disk and memory; one that cannot be had is left out.

    - ``folder``: the disk is the one that holds it; a folder that is not there stands for the nearest that is.
    """
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        disk = shutil.disk_usage(folder)
    except OSError:
        pass
    else:
        yield "disk_free_bytes", "Free on the disk of the project's folder, for this user.", float(disk.free)
        yield "disk_total_bytes", "Size of that disk.", float(disk.total)
    yield "memory_total_bytes", "What the process may take: of its container, or of the machine.", float(memory_limit())


def places_of(config: Config) -> list[Path]:
    """Where the service writes on disks: its state, scores, detectors, alerts."""
    state = sa.make_url(config.service.store)
    places = [config.bundle.parent, config.alerts.file.path]
    places += [Path(state.database)] if state.get_backend_name() == "sqlite" and state.database else []
    return places + ([Path(config.output.path)] if config.output.path is not None else [])


def memory_limit(limits: tuple[str, ...] = _LIMITS) -> int:
    """Bytes of memory that this process may have: of the container, if that is less than the machine has.

    >>> 0 < memory_limit() <= memory_limit(())
    True
    """
    found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for name in limits:
        try:
            text = Path(name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdecimal():
            found = min(found, int(text))
    return found

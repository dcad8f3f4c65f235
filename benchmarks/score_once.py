"""Run one scoring job in a process of its own and print what it took, as JSON.

``python -m benchmarks.score_once CONFIG INPUT OUTPUT``
"""

from __future__ import annotations

import json
import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from pipelines.config import load_config
from pipelines.scoring.one_off import score


def peak_memory_mb() -> float:
    """Return the most memory this process held, in MB.

    From Linux itself: ``getrusage`` would report the parent's peak if that was larger.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found.group(1)) / 1024 if found else float("nan")


if __name__ == "__main__":
    config = load_config(sys.argv[1])
    started = time.perf_counter()
    score(config, input=sys.argv[2], output=sys.argv[3], now=datetime.now(UTC))
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "peak_memory_mb": peak_memory_mb()}))

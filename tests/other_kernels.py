"""Run tests as on other processors: ``python -m tests.other_kernels FILES``, as ``make kernels`` does.

OpenBLAS and NumPy choose their code by the processor, and each rounds in its own way. A result that hangs on the last
bits passes on one machine and fails on the next. So tests run once more with each of OpenBLAS's kernels that this
processor can run and did not choose, and without NumPy's widest vectors.
"""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import threadpoolctl

KERNELS = {"SkylakeX": "X86_V4", "Haswell": "X86_V3", "Nehalem": "X86_V2"}
"""What NumPy calls the vectors that each kernel needs, from the widest on."""
WIDER = {"Haswell": ("Zen",), "SkylakeX": ("Cooperlake", "SapphireRapids")}
"""The processors with kernels of their own that round nearly like these."""
ASK = "import numpy, threadpoolctl; print(*{each.get('architecture') for each in threadpoolctl.threadpool_info()})"


def vectors() -> dict[str, list[str]]:
    """What NumPy was built for, and what else it found in this processor, by its names for instruction sets."""
    extensions: dict[str, list[str]] = np.show_config(mode="dicts")["SIMD Extensions"]  # type: ignore[call-overload]
    return {"baseline": extensions["baseline"], "found": extensions.get("found", [])}


def other_kernels() -> list[str]:
    """Haswell's and Skylake's, without that which is chosen here; an old one if none is left."""
    chosen = {str(each.get("architecture")) for each in threadpoolctl.threadpool_info()}
    known = vectors()
    possible = [name for name, needed in KERNELS.items() if needed in known["baseline"] + known["found"]]
    others = [name for name in possible if not chosen & {name, *WIDER.get(name, ())}]
    return [name for name in others if name != "Nehalem"] or others


def widest_vectors() -> list[str]:
    """What NumPy may be told to do without: all that need AVX-512, or else AVX2."""
    found = vectors()["found"]
    return [name for name in found if "X86_V4" in name or "AVX512" in name] or found


def main(arguments: list[str]) -> int:
    """Run pytest with each kernel; the exit code of the first that fails."""
    kernels = other_kernels()
    if not kernels:
        print("OpenBLAS has no other kernels for this processor.")
    for kernel in kernels:
        without = " ".join(widest_vectors())
        environment = os.environ | {"OPENBLAS_CORETYPE": kernel, "NPY_DISABLE_CPU_FEATURES": without}
        found = subprocess.check_output([sys.executable, "-c", ASK], env=environment, text=True).split()
        if found != [kernel]:
            print(f"OpenBLAS was told to use {kernel}, but uses {found}.")
            return 1
        print(f"OpenBLAS with the kernels of {kernel}, NumPy without {without or 'nothing'}:", flush=True)
        code = subprocess.call([sys.executable, "-m", "pytest", *arguments], env=environment)
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

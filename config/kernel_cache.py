"""Where compiled kernels are kept: one folder for each state of all kernel sources together.

numba keeps machine code beside each module and looks only at that module's own source when it decides whether it is current. A kernel that
calls one of another module would so go on with the old code after an update of the other: wrong results, silently (met and reproduced).
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path


def use_kernel_cache(package: Path) -> Path:
    """Point numba at the cache for the present kernel sources below `package`; a NUMBA_CACHE_DIR of the user's stays. Returns the folder."""
    state = hashlib.blake2b(digest_size=8)
    for path in sorted(package.rglob("*kernels.py")):
        state.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    chosen = os.environ.setdefault("NUMBA_CACHE_DIR", str(package / "__pycache__" / f"kernels-{state.hexdigest()}"))
    if "numba" in sys.modules:  # it read its variables when it was imported
        sys.modules["numba"].config.CACHE_DIR = chosen
    return Path(chosen)

"""The decorators of the book kernels: compiled, cached on disk, without the interpreter's lock. And what numba has no words for:
a prefetch, and bytes turned round.

Reference counting of array arguments is switched off: kernels allocate nothing, and counting cost more than the replay itself (measured on
7.4M futures events, ten levels: 850 ns a record with it, 360 without). `inner` functions are inlined where they are used: a book is six arrays,
whose descriptions would otherwise be copied at every call.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array


def _load_without_blas() -> None:
    """numba looks for SciPy's BLAS when it loads its first kernel, for products of matrices, of which there are none here: 0.15 s and 16 MB for
    nothing in every process. Its module does as if there were no SciPy while it is loaded."""
    blas = "scipy.linalg.cython_blas"
    if blas not in sys.modules:
        sys.modules[blas] = None  # type: ignore[assignment]
        try:
            importlib.import_module("numba.np.arraymath")
        finally:
            del sys.modules[blas]


_load_without_blas()

njit = numba.njit  # for the kernels that are compiled as numba does it by default

kernel = njit(nogil=True, cache=True, _nrt=False, error_model="numpy")  # type: ignore[call-overload]
inner = njit(nogil=True, cache=True, _nrt=False, error_model="numpy", forceinline=True)  # type: ignore[call-overload]

LINE_BYTES = 64


def _prefetch(_context, array, index):  # type: ignore[no-untyped-def]
    """Ask for element `index` of a one-dimensional array, which will be read or written soon. It need not exist."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        data = make_array(signature.args[0])(context, builder, arguments[0]).data
        place = builder.bitcast(builder.gep(data, [arguments[1]]), cgutils.voidptr_t)
        word = ir.IntType(32)
        asked = builder.module.declare_intrinsic(
            "llvm.prefetch", [cgutils.voidptr_t], ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, word, word, word])
        )
        builder.call(asked, [place, word(0), word(3), word(1)])
        return context.get_dummy_value()

    return types.void(array, index), generate


prefetch: Any = (lambda array, index: None) if config.DISABLE_JIT else intrinsic(_prefetch)  # type: ignore[attr-defined]


def _big_endian(_context, value):  # type: ignore[no-untyped-def]
    """An int64 with its bytes turned round: as it stands in a big-endian array."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.bswap(context.cast(builder, arguments[0], signature.args[0], types.int64))

    return types.int64(value), generate


big_endian: Any = (lambda value: np.int64(value).byteswap()) if config.DISABLE_JIT else intrinsic(_big_endian)  # type: ignore[attr-defined]


def aligned(length: int, dtype: np.dtype) -> np.ndarray:
    """Zeros of length `length` that begin with a cache line: an element of 32 bytes then never lies in two."""
    raw = np.zeros(length * dtype.itemsize + LINE_BYTES, np.uint8)
    start = -raw.ctypes.data % LINE_BYTES
    return raw[start : start + length * dtype.itemsize].view(dtype)

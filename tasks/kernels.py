"""The decorators of the book kernels: compiled, cached on disk, without the interpreter's lock.

Reference counting of array arguments is switched off: kernels allocate nothing, and counting cost more than the replay itself (measured on
7.4M futures events, ten levels: 850 ns a record with it, 360 without). `inner` functions are inlined where they are used: a book is six arrays,
whose descriptions would otherwise be copied at every call.
"""

from __future__ import annotations

from numba import njit

kernel = njit(nogil=True, cache=True, _nrt=False, error_model="numpy")  # type: ignore[call-overload]
inner = njit(nogil=True, cache=True, _nrt=False, error_model="numpy", forceinline=True)  # type: ignore[call-overload]

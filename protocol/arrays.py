"""Arrays as files of numpy's own format (.npy, version 1.0), as a bundle holds them.

Reading takes only what `written` writes: numbers and truth values, little-endian, C order. The header is matched, never
evaluated, and nothing is allocated for it: the bytes have to be there (a header may say a shape of 10^18)."""

from __future__ import annotations

import io
import math
import re

import numpy as np
from numpy.typing import NDArray

from protocol.errors import BadBundle, Reason

MAGIC = b"\x93NUMPY\x01\x00"
_MOST_HEADER = 4096
_HEADER = re.compile(
    r"\{'descr': '(?P<descr>\|[biu]1|<[iu][248]|<f[248])', 'fortran_order': False, "
    r"'shape': \((?P<shape>(?:[0-9]{1,18}, ){0,7}(?:[0-9]{1,18},?)?)\), \} *\n"
)


def written(array: NDArray[np.generic]) -> bytes:
    """A file's bytes. Raises ValueError for an array that `read` would not take: objects, words, times."""
    out = io.BytesIO()
    tidy = np.ascontiguousarray(array)
    if tidy.dtype.kind not in "biuf" or tidy.dtype.itemsize > 8:
        raise ValueError(f"an array of {tidy.dtype} has no place in a bundle: numbers and truth values only")
    np.lib.format.write_array(out, tidy.astype(tidy.dtype.newbyteorder("<"), copy=False), (1, 0), allow_pickle=False)
    return out.getvalue()


def read(name: str, body: bytes) -> NDArray[np.generic]:
    """The array in a file; name: of the file, for people. Raises BadBundle."""
    length = int.from_bytes(body[8:10], "little")
    if not body.startswith(MAGIC) or length > _MOST_HEADER or len(body) < 10 + length:
        raise BadBundle(Reason.BAD_ARCHIVE, f"{name} is no .npy file of version 1.0, or is cut")
    header = _HEADER.fullmatch(body[10 : 10 + length].decode("latin-1"))
    if header is None:
        raise BadBundle(
            Reason.BAD_ARCHIVE, f"{name} has a header that is not ours: numbers or truth values in C order are wanted"
        )
    dtype = np.dtype(header["descr"])
    shape = tuple(int(n) for n in header["shape"].replace(" ", "").split(",") if n)
    wanted, there = math.prod(shape) * dtype.itemsize, len(body) - 10 - length
    if wanted != there:
        raise BadBundle(Reason.BAD_ARCHIVE, f"{name} says {dtype}{list(shape)}, {wanted} bytes, and has {there}")
    try:
        # a copy: an array over the archive's bytes would be read-only and keep all of them in memory
        return np.frombuffer(body, dtype=dtype, offset=10 + length).reshape(shape).copy()
    except ValueError as error:  # no elements in too many dimensions
        raise BadBundle(Reason.BAD_ARCHIVE, f"{name} says a shape that no array has: {list(shape)}") from error

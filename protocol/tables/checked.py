"""Arrays of a bundle that comes from outside: present, of the right kind and shape, finite; or refused by name."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from protocol.errors import BadBundle, Reason

Tables = dict[str, NDArray[np.generic]]


def table(tables: Tables, name: str, kind: str, shape: tuple[int | None, ...]) -> NDArray[np.generic]:
    """The array `name`, whose dtype kind is one of `kind` ("f", "iu", …) and whose shape fits (None: any length).
    Raises BadBundle."""
    array = tables.get(name)
    if array is None:
        raise BadBundle(Reason.BAD_ARCHIVE, f"table {name!r} is missing")
    fits = array.ndim == len(shape) and all(
        want is None or want == have for want, have in zip(shape, array.shape, strict=True)
    )
    if array.dtype.kind not in kind or not fits:
        raise BadBundle(
            Reason.BAD_ARCHIVE, f"table {name!r} is {array.dtype}{array.shape}; expected kind {kind} shape {shape}"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise BadBundle(Reason.BAD_ARCHIVE, f"table {name!r} holds NaN or infinity")
    return array

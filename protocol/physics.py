"""Features that physics derives from what was measured: the learner and the gateway compute the same ones, from the same
short list of formulas in the passport."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
import numpy as np

from protocol.errors import Reason, Refused
from protocol.observations import Name
from protocol.windows import Floats

WATTS_PER_NM_RPM = 2.0 * np.pi / 60.0


class Law(StrEnum):
    """first - second; first * second; torque [Nm] * speed [1/min] as mechanical power [W]."""

    DIFFERENCE = "difference"
    PRODUCT = "product"
    POWER = "power"


class Formula(msgspec.Struct, frozen=True):
    """The feature `name` is `law` of two earlier features."""

    name: Name
    law: Law
    of: Annotated[list[Name], msgspec.Meta(min_length=2, max_length=2)]


def with_physics(x: Floats, features: list[str], formulas: list[Formula]) -> tuple[Floats, list[str]]:
    """Rows x [N, F] with a column more for each formula, and the names of all columns. A missing value makes what is
    derived from it missing. Raises Refused if a formula names an unknown feature or the widths differ."""
    x = np.asarray(x, dtype=np.float64)
    if x.ndim != 2 or x.shape[1] != len(features):
        raise Refused(Reason.WRONG_TYPE, f"rows of shape {x.shape} for {len(features)} features {features}")
    columns = {name: x[:, i] for i, name in enumerate(features)}
    for formula in formulas:
        unknown = [name for name in formula.of if name not in columns]
        if unknown or formula.name in columns:
            raise Refused(
                Reason.BAD_NAME, f"formula {formula.name!r} needs {formula.of} of {list(columns)} and a name of its own"
            )
        first, second = (columns[name] for name in formula.of)
        columns[formula.name] = _derived(formula.law, first, second)
    return np.stack(list(columns.values()), axis=1) if columns else x, list(columns)


def _derived(law: Law, first: Floats, second: Floats) -> Floats:
    match law:
        case Law.DIFFERENCE:
            return first - second
        case Law.PRODUCT:
            return first * second
        case Law.POWER:
            return first * second * WATTS_PER_NM_RPM

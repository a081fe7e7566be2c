"""The kinds of rows of `export.py`, whatever the network: bytes, what packing cost, microseconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import contract
import numpy as np

from export.forms import FLOAT32, latencies
from protocol.bundles import Form

REPEATS = 8


def named(forms: Sequence[Form], name: str) -> Form:
    """One of the forms that were tried."""
    return next(form for form in forms if form.name == name)


def size_row(
    sheet: contract.Sheet,
    what: str,
    packed: int,
    whole: int,
    most: float,
    *,
    exported: int | None = None,
    judged: bool = True,
) -> None:
    """Bytes of a packed graph over those of the float graph, as they lie in a bundle; exported: of the float graph as torch's
    exporter wrote it, with its traces."""
    share = packed / whole
    sheet.row(
        what,
        "bytes / float bytes",
        share,
        reference=1.0,
        peers={} if exported is None else {"over the graph as exported": packed / exported},
        target=most,
        holds=share <= most if judged else None,
        bytes=packed,
        float_bytes=whole,
        exported_bytes=exported,
    )


def change_row(
    sheet: contract.Sheet,
    what: str,
    metric: str,
    changes: Sequence[float],
    most: float,
    *,
    n: int,
    seconds: float,
    judged: bool = True,
    **more: object,
) -> None:
    """What packing cost: the mean of the changes for the worse, by seed."""
    mean = float(np.mean(changes))
    sheet.row(
        what,
        metric,
        mean,
        reference=0.0,
        target=most,
        holds=mean <= most if judged else None,
        n=n,
        seconds=seconds,
        by_seed=[round(one, 6) for one in changes],
        worst=round(max(changes), 6),
        **more,
    )


def strain_of(form: Form) -> dict[str, object]:
    """Extra fields: error of single answers on ordinary rows and on others."""
    return {
        "element_rms": round(form.parity.rel_rms, 5) if form.parity else None,
        "strained": {kind: round(rms, 5) for kind, rms in form.strained.items()},
        "verdict": form.why or "taken",
    }


def timed(calls: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Microseconds of each call, the least of several rounds in turn."""
    rounds = [latencies(calls) for _ in range(REPEATS)]
    return {name: min(one[name] for one in rounds) for name in calls}


def faster_row(
    sheet: contract.Sheet,
    what: str,
    metric: str,
    times: Mapping[str, float],
    ours: str,
    reference: str,
    most: float,
    *,
    judged: bool = True,
) -> None:
    """Microseconds of one over another's; most: the largest share."""
    share = times[ours] / times[reference]
    sheet.row(
        what,
        metric,
        share,
        reference=1.0,
        target=most,
        holds=share <= most if judged else None,
        microseconds={name: round(one, 1) for name, one in times.items()},
    )


def forms_note(sheet: contract.Sheet, what: str, forms: Sequence[Form]) -> None:
    """All that was tried, in words."""
    told = [f"{form.name} {form.size} bytes" + (f" ({form.why})" if form.why else " (taken)") for form in forms]
    sheet.note(f"{what}: {'; '.join(one for one in told if not one.startswith(FLOAT32))}")

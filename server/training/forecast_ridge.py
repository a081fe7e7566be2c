"""Ridge: closed-form weights that a whole fleet shares, with a correction a signal."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np

from export import parity
from export.bundle import Draft
from export.to_tables import ridge_tables
from protocol.bundles import Golden, Runtime
from protocol.tables import Ridge
from server import evaluation
from server.algorithms import ridge
from server.training.circumstances import Progress
from server.training.course import RIDGE, Course, Trained, champion_error, finite, forecast_quality


def train_ridge(course: Course, progress: Progress) -> Trained | None:
    """None where the data do not suffice."""
    grid, tail, inner, spec = course.grid, course.tail, course.inner, course.plan.window
    settings = replace(
        ridge.settings_for(spec.horizon, spec.season, spec.context, inner.split), check=tail.split - inner.split
    )
    fitted = ridge.fit(list(grid.values[:, : tail.split]), settings, lambda f, step: progress(0.8 * f, step))
    if fitted is None:
        return None
    rows = list(range(len(grid.series)))
    on_inner = evaluation.table_answers(inner, Ridge(fitted.before), rows)[..., 0]
    tables = ridge_tables(fitted.tables)
    model = Ridge(tables)
    answers, exact = (evaluation.table_answers(tail, one, rows) for one in (model, fitted.model()))
    error, by_series, _ = tail.relative_error(answers[..., 0])
    float_error = tail.relative_error(exact[..., 0])[0]
    seen = np.isfinite(answers).all(axis=(2, 3))
    if not seen.any():
        return None
    context = evaluation.contexts(tail.values, tail.origins, model.context)
    places = np.repeat(np.array(rows, dtype=np.int64)[:, None], len(tail.origins), axis=1)
    inputs, outputs = parity.golden_windows(model, context[seen], places[seen])
    widest = float(np.abs(outputs["quantiles"].astype(np.float64)).max())
    champion = champion_error(tail, grid, rows, course.world.champions.get(RIDGE))
    covered = tail.coverage(answers[..., 1 + ridge.LEVELS.index(0.1)], answers[..., 1 + ridge.LEVELS.index(0.9)])
    draft = Draft(
        slot=RIDGE,
        family="forecast",
        algorithm="ridge",
        version=course.world.versions.get(RIDGE, 1),
        runtime=Runtime.RIDGE,
        window=spec,
        levels=list(ridge.LEVELS),
        series=list(grid.series),
        series_error=finite(by_series),
        tables=tables,
        lineage=course.world.lineage(course.plan.seed, {**asdict(settings), **fitted.chosen}),
        quality=[forecast_quality(tail, answers[..., 0], champion)],
        parity=parity.compare(exact[seen], answers[seen], float_error, error, lower_is_better=True),
        golden=Golden(atol=1e-6 * max(widest, 1e-6), rtol=1e-6),
        golden_inputs=inputs,
        golden_outputs=outputs,
        float_bytes=sum(int(table.nbytes) for table in fitted.tables.values()),
        latency_us=parity.latency_us(lambda: model.forecast(context[0, :1], places[0, :1])),
        intended_use="Forecasts with intervals of any signal of this site, each with what every past value added.",
        limits="Linear (in logarithms where that was better); known future inputs are not used; a series outside of the "
        "list gets the fleet's weights and a wider interval.",
        words=f"The 80 % interval held {covered:.0%} of held-out values.",
    )
    progress(1.0, "ridge packed")
    return Trained(draft, answers[..., 0], on_inner)

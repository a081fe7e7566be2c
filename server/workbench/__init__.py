"""Training on a user's own file: a table of recorded values goes in, a folder of sealed forecasters and what they are
worth comes out. The folder appears whole or not at all.

    from protocol.recordings import Layout
    from server.workbench import train_forecast_file

    layout = Layout(time="time", series=("machine",), targets=("temperature",))
    trained = train_forecast_file(Path("line.csv"), layout, Path("models"), horizon=24)
    print(trained.report.best, [row.verdict for row in trained.report.models])
"""

from __future__ import annotations

from server.workbench.training import MODELS, Trained, TrainPlan, train_forecast_file
from server.workbench.worth import ClassRow, ModelRow, TrainingReport

__all__ = ["MODELS", "ClassRow", "ModelRow", "TrainPlan", "Trained", "TrainingReport", "train_forecast_file"]

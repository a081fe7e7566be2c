"""Training on a user's own file: a table of recorded values, or of who chose what, goes in; a folder of sealed forecasters
or a recommender, and what they are worth, comes out. The folder appears whole or not at all.

    from protocol.recordings import Layout
    from server.workbench import train_forecast_file

    layout = Layout(time="time", series=("machine",), targets=("temperature",))
    trained = train_forecast_file(Path("line.csv"), layout, Path("models"), horizon=24)
    print(trained.report.best, [row.verdict for row in trained.report.models])

    from server.workbench import train_recommend_file

    print(train_recommend_file(Path("events.csv"), Path("shop"), items=Path("items.csv")).report.verdict)
"""

from __future__ import annotations

from server.workbench.list_worth import RecommendReport
from server.workbench.notes import NotesReport, TrainedReader, train_notes_file
from server.workbench.recommending import TrainedLists, train_recommend_file
from server.workbench.training import MODELS, Trained, TrainPlan, train_forecast_file
from server.workbench.worth import ClassRow, ModelRow, TrainingReport

__all__ = [
    "MODELS",
    "ClassRow",
    "ModelRow",
    "NotesReport",
    "RecommendReport",
    "TrainPlan",
    "Trained",
    "TrainedLists",
    "TrainedReader",
    "TrainingReport",
    "train_forecast_file",
    "train_notes_file",
    "train_recommend_file",
]

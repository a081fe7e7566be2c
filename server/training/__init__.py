"""From a frozen data set to sealed candidates: fit, pack, measure what packing cost, measure against the simple
reference and the champion, and say the verdict in words. One module a family."""

from __future__ import annotations

from server.training.circumstances import DIGITS, Candidate, Circumstances, Progress
from server.training.forecast import (
    ARIMA,
    FORECAST_SLOTS,
    INT8_ATOL,
    LSTM,
    RELATIVE_ERROR,
    ForecastPlan,
    random_lstm_bundle,
    train_forecast,
)
from server.training.life import REMAINING_LIFE, LifePlan, train_life
from server.training.recommend import ITEMS, train_recommend

__all__ = [
    "ARIMA",
    "DIGITS",
    "FORECAST_SLOTS",
    "INT8_ATOL",
    "ITEMS",
    "LSTM",
    "RELATIVE_ERROR",
    "REMAINING_LIFE",
    "Candidate",
    "Circumstances",
    "ForecastPlan",
    "LifePlan",
    "Progress",
    "random_lstm_bundle",
    "train_forecast",
    "train_life",
    "train_recommend",
]

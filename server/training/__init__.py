"""From a frozen data set to sealed candidates: fit, pack, measure what packing cost, measure against the simple
reference and the champion, and say the verdict in words. One module a family."""

from __future__ import annotations

from server.training.circumstances import DIGITS, Candidate, Circumstances, Progress
from server.training.course import ARIMA, FORECAST_SLOTS, LSTM, RELATIVE_ERROR, RIDGE, ForecastPlan, LstmPlan
from server.training.faults import EVENTS, TABULAR, train_fault_events, train_fault_table
from server.training.forecast import train_forecast
from server.training.forecast_lstm import INT8_ATOL, random_lstm_bundle
from server.training.life import REMAINING_LIFE, LifePlan, train_life
from server.training.monitor import MonitorPlan, train_monitors
from server.training.reader import READER, train_reader
from server.training.recommend import ITEMS, train_recommend
from server.training.supply import LATE, train_late

__all__ = [
    "ARIMA",
    "DIGITS",
    "EVENTS",
    "FORECAST_SLOTS",
    "INT8_ATOL",
    "ITEMS",
    "LATE",
    "LSTM",
    "READER",
    "RELATIVE_ERROR",
    "REMAINING_LIFE",
    "RIDGE",
    "TABULAR",
    "Candidate",
    "Circumstances",
    "ForecastPlan",
    "LifePlan",
    "LstmPlan",
    "MonitorPlan",
    "Progress",
    "random_lstm_bundle",
    "train_fault_events",
    "train_fault_table",
    "train_forecast",
    "train_late",
    "train_life",
    "train_monitors",
    "train_reader",
    "train_recommend",
]

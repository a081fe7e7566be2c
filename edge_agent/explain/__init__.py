"""What an answer shows for itself: names in both languages, evidence, why a forecast is what it is, and its picture."""

from __future__ import annotations

from edge_agent.explain.cases import nearest_cases
from edge_agent.explain.citing import STATISTICS, evidence
from edge_agent.explain.labels import Labels, Words
from edge_agent.explain.shares import (
    Part,
    Shares,
    combined,
    explain_forecast,
    explain_shown,
    linear_shares,
    shapley_shares,
    time_parts,
)

__all__ = [
    "STATISTICS",
    "Labels",
    "Part",
    "Shares",
    "Words",
    "combined",
    "evidence",
    "explain_forecast",
    "explain_shown",
    "linear_shares",
    "nearest_cases",
    "shapley_shares",
    "time_parts",
]

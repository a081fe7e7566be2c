"""What an answer shows for itself: names in both languages, evidence, why a forecast is what it is, and its picture;
why an item is recommended."""

from __future__ import annotations

from edge_agent.explain.cases import nearest_cases
from edge_agent.explain.citing import STATISTICS, evidence
from edge_agent.explain.labels import Labels, Words
from edge_agent.explain.reasons import (
    Listing,
    Reasons,
    WhatIf,
    flips_without,
    readable,
    reasons,
    shown_share,
    similar_cases,
)
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
    "Listing",
    "Part",
    "Reasons",
    "Shares",
    "WhatIf",
    "Words",
    "combined",
    "evidence",
    "explain_forecast",
    "explain_shown",
    "flips_without",
    "linear_shares",
    "nearest_cases",
    "readable",
    "reasons",
    "shapley_shares",
    "shown_share",
    "similar_cases",
    "time_parts",
]

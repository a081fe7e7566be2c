"""Forecasts every signal with intervals that hold, from the best model at hand, and keeps score of all of them.

skill: what the agent calls; answers: asking one model; reference: the simple answer that is always there; choose: which
answer is shown, or which combination; scores: how good each was here; level: what to expect before any model is there;
memory: what survives a restart."""

from __future__ import annotations

from edge_agent.skills.forecast.answers import COMBINED, NAIVE
from edge_agent.skills.forecast.skill import MIN_SCORED, STALE_AFTER_BUCKETS, ForecastSkill, HistoryReader

__all__ = ["COMBINED", "MIN_SCORED", "NAIVE", "STALE_AFTER_BUCKETS", "ForecastSkill", "HistoryReader"]

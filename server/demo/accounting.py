"""Where everything went: pure functions from what each hop says to a verdict per hop."""

from __future__ import annotations

from typing import Any

from protocol.writing.clauses import FAULT_REPORT


def readings(published: dict[str, int], counters: dict[str, int]) -> dict[str, Any]:
    """Samples published by one line against what its agent says became of them."""
    quarantined = {n.removeprefix("quarantine."): c for n, c in counters.items() if n.startswith("quarantine.")}
    quarantined = {n: c for n, c in quarantined.items() if not n.endswith(".other")}
    stored, duplicate = counters.get("intake.stored", 0), counters.get("intake.duplicate", 0)
    accounted = stored + duplicate + counters.get("intake.initial", 0) + sum(quarantined.values())
    samples = published.get("samples", 0)
    return {
        "published": samples,
        "stored": stored,
        "duplicate": duplicate,
        "quarantined": quarantined,
        "unaccounted": samples - accounted,
        "holds": samples == accounted and samples > 0,
    }


def reports(written: int, rows: list[str], dead_letters: int) -> dict[str, Any]:
    """Reports the gateways wrote against rows in the server's database: each exactly once."""
    return {
        "written": written,
        "in_database": len(rows),
        "distinct": len(set(rows)),
        "dead_letters": dead_letters,
        "holds": written == len(rows) == len(set(rows)),
    }


def reports_by_the_model(reports: list[dict[str, Any]]) -> dict[str, int]:
    """Reports of which a language model chose the words of some section, and those in a wording that a catalogue did not
    have when the product was delivered."""
    delivered = {clause.id: len(clause.en) for clause in FAULT_REPORT.clauses}

    def chosen(report: dict[str, Any]) -> list[str]:
        sections = [section for section in report["sections"] if section["mode_en"] == "strict"]
        return [name for section in sections for name in section["clauses_en"]]

    def is_own(name: str) -> bool:
        clause, _, wording = name.partition("#")
        return int(wording) >= delivered.get(clause, 0)

    by_model = [names for report in reports if (names := chosen(report))]
    return {"reports": len(by_model), "with_own_words": sum(any(map(is_own, names)) for names in by_model)}


def complete_to(signed: dict[str, Any], gateway: str) -> dict[str, int]:
    """How far the server's signed ledger has every class of a gateway without a gap."""
    lanes = [lane for one in signed["ledger"]["gateways"] if one["gateway"] == gateway for lane in one["lanes"]]
    return {lane["message_class"]: lane["complete_to"] for lane in lanes}


def outbox(lanes: dict[str, dict[str, Any]], signed: dict[str, Any], gateway: str) -> dict[str, Any]:
    """Messages numbered by a gateway against what the server's signed ledger is complete to."""
    upto = complete_to(signed, gateway)
    missing = {c: lane["next"] - 1 - upto.get(c, 0) for c, lane in lanes.items()}
    return {
        "numbered": {c: lane["next"] - 1 for c, lane in lanes.items()},
        "missing": {c: n for c, n in missing.items() if n},
        "shed": {c: lane["shed"] for c, lane in lanes.items() if lane["shed"]},
        "holds": not any(missing.values()),
    }


def feedback_model(gateways: list[dict[str, Any]]) -> dict[str, Any]:
    """Whether every gateway serves a recommendation model beyond the first, learned from answers."""
    versions = {
        g["id"]: max(
            [
                m["version"]
                for m in g["reported"].get("models", [])
                if m["slot"] == "recommend.items" and m["status"] == "serving"
            ],
            default=0,
        )
        for g in gateways
    }
    return {"serving_versions": versions, "holds": bool(versions) and min(versions.values()) >= 2}


def windows_hit(events: list[dict[str, Any]], windows: list[tuple[int, int]]) -> dict[str, Any]:
    """Events whose detection lies inside a labelled window, and those outside."""
    inside = [e for e in events if any(a <= e["detected_ms"] <= b for a, b in windows)]
    hit = sum(any(a <= e["detected_ms"] <= b for e in events) for a, b in windows)
    return {
        "events": len(events),
        "inside": len(inside),
        "outside": len(events) - len(inside),
        "windows": len(windows),
        "windows_hit": hit,
        "holds": bool(inside),
    }


def forecast_errors(models: list[dict[str, Any]], gateways: list[dict[str, Any]]) -> dict[str, Any]:
    """LSTM, ARIMA and the simple reference side by side: held-out by the newest passport, and live on the gateways.
    Both are mean absolute errors divided by the simple reference's on the same values, so the reference is 1."""
    held_out: dict[str, Any] = {"reference": 1.0}
    for model in sorted(models, key=lambda m: m["version"]):
        if model["slot"].startswith("forecast."):
            quality = next((q for q in model["passport"]["quality"] if q["metric"] == "mae_relative_to_naive"), None)
            if quality is not None:
                held_out[model["passport"]["algorithm"]] = {
                    "mae_relative_to_naive": quality["model"],
                    "reference": quality["reference"],
                    "reference_name": quality["reference_name"],
                    "n": quality["n"],
                    "version": model["version"],
                    "status": model["status"],
                    "verdict": model["verdict"],
                    "int8_error_change": model["passport"]["parity"]["task_change"],
                    "float_bytes": model["passport"]["float_bytes"],
                    "packed_bytes": model["passport"]["packed_bytes"],
                }
    live: dict[str, Any] = {}
    for gateway in gateways:
        for error in gateway["heartbeat"].get("live_errors", []):
            live.setdefault(error["algorithm"], {})[gateway["id"]] = {
                "scaled_error": error["scaled_error"],
                "coverage": error["coverage"],
                "n": error["n"],
            }
    return {"held_out": held_out, "live": live}

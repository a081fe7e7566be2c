"""One small bundle of tables, and archives as somebody would make them who means harm."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from protocol.bundles import PASSPORT, Bundle, Golden, Lineage, Parity, Passport, Runtime

SLOT = "recommend.items"


def small(version: int = 1, golden: float = 0.5, **passport: Any) -> Bundle:
    """One symptom with one action; `golden` is the score that a gateway must find."""
    told: dict[str, Any] = {
        "slot": SLOT,
        "family": "recommend",
        "algorithm": "item_neighbours",
        "version": version,
        "runtime": Runtime.NEIGHBOURS,
        "items": ["action:x", "symptom:a"],
        "lineage": Lineage(dataset_digest="0" * 64, dataset_rows=1, code_version="0", seed=1, trained_ms=1),
        "quality": [],
        "eligible": True,
        "verdict": "made for a test",
        "parity": Parity(max_abs=0, rel_rms=0, task_change=0, n=1, bound="none"),
        "golden": Golden(atol=1e-6, rtol=0),
        "float_bytes": 1,
        "packed_bytes": 1,
        "latency_us": 1,
        "intended_use": "tests",
        "limits": "none",
    }
    return Bundle(
        passport=Passport(**(told | passport)),
        tables={
            "indptr": np.array([0, 0, 1], dtype=np.int32),
            "ids_gaps": np.array([0], dtype=np.uint8),
            "weights": np.array([100], dtype=np.int8),
            "row_scale": np.array([0.005, 0.005], dtype=np.float32),
        },
        golden_inputs={"profiles": np.array([[0.0, 1.0]])},
        golden_outputs={"ranked": np.array([[0, -1]]), "scores": np.array([[golden, 0.0]])},
    )


def members(archive: bytes) -> dict[str, bytes]:
    """What an archive holds, by name."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return {entry.filename: opened.read(entry) for entry in opened.infolist()}


def zipped(*entries: tuple[str, bytes], compress: int = zipfile.ZIP_STORED) -> bytes:
    """An archive of these entries, in this order."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compress) as archive:
        for name, body in entries:
            archive.writestr(zipfile.ZipInfo(name), body, compress)
    return out.getvalue()


def rewritten(archive: bytes, changed: Mapping[str, bytes | None], **passport: Any) -> bytes:
    """The same with members replaced, added or (None) left out, and a passport whose list of files is right again: what
    somebody makes who has understood the format. passport: fields of it, as JSON."""
    held = members(archive)
    told = msgspec.json.decode(held.pop(PASSPORT)) | passport
    kept = {name: body for name, body in (held | dict(changed)).items() if body is not None}
    told["files"] = {name: hashlib.sha256(body).hexdigest() for name, body in kept.items()}
    return zipped(*sorted((kept | {PASSPORT: msgspec.json.encode(told)}).items()))

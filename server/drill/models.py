"""Bundles that the drill rolls out: a recommender of one symptom and one action, as large as it is asked to be."""

from __future__ import annotations

import random
import time

import numpy as np

from protocol.bundles import Bundle, Golden, Lineage, Parity, Passport, Runtime, digest, pack, with_files
from protocol.twin import Role
from server import registry, rollouts
from server.database import Model
from server.drill.site import Site

SLOT = "recommend.items"


def made(version: int, names: int) -> Bundle:
    """A bundle that is right; each of `names` further items makes it some 50 bytes larger."""
    words = random.Random(version)  # noqa: S311 - no secret
    items = ["action:look", "symptom:vibration:high", *(f"action:{words.randbytes(20).hex()}" for _ in range(names))]
    passport = Passport(
        slot=SLOT,
        family="recommend",
        algorithm="item_neighbours",
        version=version,
        runtime=Runtime.NEIGHBOURS,
        items=items,
        lineage=Lineage(dataset_digest="0" * 64, dataset_rows=1, code_version="drill", seed=version, trained_ms=1),
        quality=[],
        eligible=True,
        verdict="made for a drill",
        parity=Parity(max_abs=0, rel_rms=0, task_change=0, n=1, bound="none"),
        golden=Golden(atol=1e-6, rtol=0),
        float_bytes=1,
        packed_bytes=1,
        latency_us=1,
        intended_use="drills",
        limits="knows one symptom",
    )
    profile = np.zeros((1, len(items)))
    profile[0, 1] = 1.0
    return Bundle(
        passport=passport,
        tables={
            "indptr": np.array([0, 0, 1, *[1] * names], dtype=np.int32),
            "ids_gaps": np.array([0], dtype=np.uint8),
            "weights": np.array([100], dtype=np.int8),
            "row_scale": np.full(len(items), 0.005, dtype=np.float32),
        },
        golden_inputs={"profiles": profile},
        golden_outputs={"ranked": np.array([[0, -1]]), "scores": np.array([[0.5, 0.0]])},
    )


def roll_out(site: Site, bundle: Bundle) -> Model:
    """Registers a bundle on the site's server and asks the gateway to serve it."""
    archive, now_ms = pack(bundle), time.time_ns() // 1_000_000
    with site.database.begin() as session:
        model = registry.register(
            session, archive, with_files(bundle), site.folder / "artifacts", "0" * 64, "drill", now_ms
        )
        rollouts.start(session, model, Role.SERVING, [site.gateway], "a drill", now_ms)
        session.expunge(model)
    return model


def spoil(site: Site, bundle: Bundle) -> None:
    """Changes one byte of a registered bundle's file on the server."""
    path = site.folder / "artifacts" / "bundles" / f"{digest(pack(bundle))}.bundle"
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 0xFF
    path.write_bytes(bytes(body))

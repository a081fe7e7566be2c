"""A language model from a bundle chooses plans and designs on the command line, through the gateway's own runtime."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

pytest.importorskip("torch")
import torch

import millwright
from edge_agent.devices.store import catalogue_toml
from edge_agent.runtimes import load
from export.to_decoder import decoder_graph
from protocol.bundles import TOKENIZER, Bundle, Golden, Lineage, Parity, Passport, Runtime, digest, pack
from protocol.reading import tokens
from protocol.writing.decoder import WriterSpec

V, W, HEADS = 256, 16, 2


class Little(torch.nn.Module):
    """One causal attention over bytes, untrained."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.token = torch.nn.Embedding(V, W)
        self.qkv, self.head = torch.nn.Linear(W, 3 * W), torch.nn.Linear(W, V)

    def forward(self, ids: torch.Tensor, past: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        batch, steps = ids.shape
        x = self.token(ids)
        q, k, v = self.qkv(x).view(batch, steps, 3 * HEADS, W // HEADS).transpose(1, 2).split(HEADS, dim=1)
        k, v = torch.cat([past[0, 0], k], dim=2), torch.cat([past[0, 1], v], dim=2)
        before = past.shape[4]
        mask = torch.arange(before + steps)[None, :] <= torch.arange(before, before + steps)[:, None]
        seen = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask)
        return self.head(x + seen.transpose(1, 2).reshape(batch, steps, W)), torch.stack([k, v])[None]


def bundle(documents: list[str], context: int) -> bytes:
    model = Little().eval()
    ids = np.array([[80, 76, 65]])
    with torch.no_grad():
        logits = model(torch.tensor(ids), torch.zeros((1, 2, 1, HEADS, 0, W // HEADS)))[0][:, -1].numpy()
    spec = WriterSpec(
        layers=1, kv_heads=HEADS, head_width=W // HEADS, vocabulary=V, context=context, end=0, documents=documents
    )
    words = {"type": "BPE", "vocab": {c: i for i, c in enumerate(tokens._spelled())}, "merges": []}
    spelled = msgspec.json.encode({"model": words, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False}})
    passport = Passport(
        slot="report.writer", family="generate", algorithm="gpt", version=7, runtime=Runtime.DECODER, writer=spec,
        lineage=Lineage(dataset_digest="0" * 64, dataset_rows=1, code_version="1", seed=1, trained_ms=1), quality=[],
        eligible=True, verdict="", parity=Parity(max_abs=0, rel_rms=0, task_change=0, n=1, bound=""),
        golden=Golden(atol=1e-3, rtol=1e-3), float_bytes=1, packed_bytes=1, latency_us=1, intended_use="", limits="",
    )  # fmt: skip
    graph = decoder_graph(model, layers=1, kv_heads=HEADS, head_width=W // HEADS)
    return pack(
        Bundle(
            passport=passport,
            graph=graph,
            golden_inputs={"ids": ids},
            golden_outputs={"logits": logits},
            texts={TOKENIZER: spelled},
        )
    )


@pytest.fixture
def plant(tmp_path: Path) -> Path:
    (tmp_path / "plant.toml").write_text(catalogue_toml(), encoding="utf-8")
    (tmp_path / "taught.bundle").write_bytes(bundle(["work_plan", "design"], 4000))
    (tmp_path / "short.bundle").write_bytes(bundle(["work_plan"], 64))
    (tmp_path / "reports.bundle").write_bytes(bundle(["fault_report"], 4000))
    return tmp_path


@pytest.mark.parametrize(
    "asked",
    [
        ["process", "--for", "cover-panel"],
        ["maintenance", "--for", "R-301", "--failure", "oil leak"],
        ["design", "--for", "hydraulic-cylinder", "--need", "push >= 60"],
    ],
    ids=["process", "maintenance", "design"],
)
def test_whatever_a_model_would_say_what_it_chooses_is_right(
    plant: Path, capsys: pytest.CaptureFixture[str], asked: list[str]
) -> None:
    archive = (plant / "taught.bundle").read_bytes()
    assert load(archive, digest(archive)).decoder is not None
    kind, *rest = asked
    told = []
    for _ in range(2):
        arguments = [
            "--catalogue",
            str(plant / "plant.toml"),
            "--bundle",
            str(plant / "taught.bundle"),
            "--candidates",
            "3",
        ]
        assert millwright.main(["plan", kind, *rest, *arguments, "--at", "2026-09-01", "--json"]) == 0
        told.append(json.loads(capsys.readouterr().out))
    assert told[0] == told[1]
    for document in told[0]["documents"]:
        assert (document["aim"], document["model"]["version"], document["fallback"]) == ("model", 7, "")
        assert document["checks"]


def test_a_model_without_room_leaves_the_choice_to_rules(plant: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--catalogue", str(plant / "plant.toml"), "--bundle", str(plant / "short.bundle"), "--json"]
    assert millwright.main(["plan", "process", "--for", "cover-panel", *arguments]) == 0
    (first, *_) = json.loads(capsys.readouterr().out)["documents"]
    assert first["model"]["algorithm"] == "rules"
    assert "do not fit the model's context of 64" in first["fallback"]


def test_a_model_that_was_taught_something_else_is_refused(plant: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--catalogue", str(plant / "plant.toml"), "--bundle", str(plant / "reports.bundle")]
    assert millwright.main(["plan", "process", "--for", "cover-panel", *arguments]) == 2
    assert "was taught fault_report, not work_plan" in capsys.readouterr().err

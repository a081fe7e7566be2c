"""The loop that trains language models: same seed, same result; stopped, it goes on; several processes are one."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from protocol.errors import BadSettings
from server.algorithms.gpt import Gpt, GptSettings, TorchDecoder
from server.training.language import (
    CURVE,
    IGNORED,
    PICTURE,
    STATE,
    Examples,
    Learned,
    LoopSettings,
    Stream,
    learn,
    log_likelihoods,
    next_token_loss,
)

ROOT = Path(__file__).parents[2]
SIZES = GptSettings(vocabulary=24, context=32, layers=1, heads=2, width=16, dropout=0.1)
LOOP = LoopSettings(steps=40, learning_rate=1e-2, check_every=10, save_every=15, patience=0)
BOTH = pytest.mark.parametrize("loop", [LOOP, replace(LOOP, matrix_rate=2e-2)], ids=["adamw", "muon"])
TEXTS = [[(i * step) % 20 for i in range(60)] for step in (1, 3, 7)] * 4
LATER = Stream([[(i * 3 + 2) % 20 for i in range(100)]], 20, 16, 4, 0).in_order()


def quiet(_share: float, _text: str) -> None:
    """Nobody watches."""


def trained(
    settings: LoopSettings = LOOP, folder: Path | None = None, stop: Callable[[], bool] = lambda: False, batch: int = 4
) -> tuple[Gpt, Learned]:
    net = Gpt(SIZES)
    return net, learn(net, next_token_loss, Stream(TEXTS, 20, 16, batch, 1), LATER, settings, quiet, folder, stop)


def same(a: Gpt, b: Gpt) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@BOTH
def test_it_learns_and_the_same_seed_gives_the_same_network(loop: LoopSettings) -> None:
    first, learned = trained(loop)
    again, _ = trained(loop)
    assert learned.finished
    assert learned.best < 0.8 * learned.curve[0].check
    assert same(first, again)
    other, _ = trained(replace(loop, seed=8))
    assert not same(first, other)


@BOTH
def test_training_that_was_stopped_goes_on_as_if_it_had_not_been(loop: LoopSettings, tmp_path: Path) -> None:
    whole, expected = trained(loop)
    asked = iter(range(1000))
    _, part = trained(loop, folder=tmp_path, stop=lambda: next(asked) == 22)
    assert not part.finished
    assert part.steps == 23
    net, learned = trained(loop, folder=tmp_path)
    assert learned.steps == 40
    assert same(net, whole)
    assert [p.check for p in learned.curve] == [p.check for p in expected.curve]


def test_power_cut_between_two_states_costs_only_the_steps_after_the_last_one(tmp_path: Path) -> None:
    def cut() -> bool:
        if (tmp_path / STATE).is_file():
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        trained(folder=tmp_path, stop=cut)
    whole, _ = trained()
    net, _ = trained(folder=tmp_path)
    assert same(net, whole)


def test_folder_keeps_a_state_without_pickle_a_curve_and_its_picture(tmp_path: Path) -> None:
    _, learned = trained(folder=tmp_path)
    lines = [json.loads(line) for line in (tmp_path / CURVE).read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 20, 30, 40]
    assert all(line["per_second"] > 0 and line["rate"] > 0 for line in lines)
    assert (tmp_path / PICTURE).read_bytes().startswith(b"\x89PNG")
    assert "exp_avg.token.weight" in load_file(tmp_path / STATE)
    assert learned.best == min(line["check"] for line in lines)


def test_state_of_other_settings_another_network_or_a_broken_one_is_refused(tmp_path: Path) -> None:
    trained(folder=tmp_path)
    with pytest.raises(BadSettings, match="another learning_rate"):
        trained(replace(LOOP, learning_rate=1e-3), folder=tmp_path)
    wider = Gpt(replace(SIZES, width=32))
    with pytest.raises(BadSettings, match="another network"):
        learn(wider, next_token_loss, Stream(TEXTS, 20, 16, 4, 1), LATER, LOOP, quiet, tmp_path)
    (tmp_path / STATE).write_bytes(b"\x80\x04pickle")
    with pytest.raises(BadSettings, match="empty folder"):
        trained(folder=tmp_path)


def test_early_stop_keeps_the_best_weights() -> None:
    net, learned = trained(replace(LOOP, steps=400, learning_rate=0.1, patience=2, check_every=5))
    assert learned.steps < 400
    assert learned.steps == learned.best_step + 10
    with torch.inference_mode():
        sums = [next_token_loss(net, batch) for batch in LATER]
    assert float(sum(s for s, _ in sums) / sum(w for _, w in sums)) == pytest.approx(learned.best, rel=1e-5)


def test_accumulated_batches_teach_what_one_large_one_does() -> None:
    """Of unequal weights: each token counts once, not each batch."""
    rows = Examples([([1, 2], [3] * n) for n in (1, 2, 9, 4)], 23, 16, 2, 0)
    halves = rows.in_order()
    together = Examples([([1, 2], [3] * n) for n in (1, 2, 9, 4)], 23, 16, 4, 0).in_order()[0]
    still = replace(SIZES, dropout=0.0)
    loop = LoopSettings(steps=1, learning_rate=1e-3, weight_decay=0, check_every=1, patience=0)
    one, two = Gpt(still), Gpt(still)
    learn(one, next_token_loss, lambda _: together, [], loop, quiet)
    learn(two, next_token_loss, lambda i: halves[i], [], replace(loop, accumulate=2), quiet)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_bfloat16_learns_too() -> None:
    _, learned = trained(replace(LOOP, precision="bfloat16"))
    assert learned.best < 0.8 * learned.curve[0].check


def test_rate_warms_up_and_falls_to_its_floor() -> None:
    rates = [LOOP.rate(step) for step in range(LOOP.steps + 1)]
    assert rates[0] == pytest.approx(0.5 * LOOP.learning_rate)
    assert max(rates) == pytest.approx(LOOP.learning_rate)
    assert rates[-1] == pytest.approx(LOOP.learning_rate * LOOP.floor)
    assert rates[2:] == sorted(rates[2:], reverse=True)


def test_only_the_target_of_an_example_teaches() -> None:
    batch = Examples([([5, 6, 7], [8, 9]), ([5], [8])], 23, 16, 2, 0).in_order()[0]
    assert batch["ids"].tolist() == [[5, 23, 23, 23], [5, 6, 7, 8]]
    assert batch["targets"].tolist() == [[8, *[IGNORED] * 3], [IGNORED, IGNORED, 8, 9]]
    cut = Examples([(list(range(10)), [20, 21])], 23, 5, 1, 0).in_order()[0]
    assert cut["ids"].tolist() == [[6, 7, 8, 9, 20]]
    with pytest.raises(ValueError, match="16 fit"):
        Examples([([1], [2] * 17)], 23, 16, 1, 0)
    with pytest.raises(ValueError, match="no examples"):
        Examples([], 23, 16, 1, 0)


def test_validation_sees_every_token_once() -> None:
    batches = Stream([list(range(20)), list(range(7))], 21, 8, 2, 0).in_order()
    targets = torch.cat([batch["targets"].flatten() for batch in batches]).tolist()
    assert targets == [*range(1, 20), 21, *range(7), 21]
    with pytest.raises(ValueError, match="at least two"):
        Stream([[]], 21, 8, 2, 0)


def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("this torch has no gloo")
    code = f"""
import sys, torch
from pathlib import Path
from dataclasses import replace
from safetensors.torch import save_file
from server.algorithms.gpt import Gpt, GptSettings, TorchDecoder
from server.training.language import LoopSettings, Stream, learn, next_token_loss
stream = Stream({TEXTS!r}, 20, 16, 4, 1)
check = Stream({[[(i * 3 + 2) % 20 for i in range(100)]]!r}, 20, 16, 4, 0).in_order()
net = Gpt({replace(SIZES, dropout=0.0)!r})
loop = LoopSettings(steps=6, learning_rate=1e-2, check_every=3, patience=0)
learn(net, next_token_loss, stream, check, loop, lambda *_: None, Path(sys.argv[1]))
save_file(net.state_dict(), sys.argv[2])
"""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = os.environ | {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "run"), str(tmp_path / f"{rank}.safetensors")],
            cwd=ROOT, env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]  # fmt: skip
    for process in running:
        _, complaint = process.communicate(timeout=120)
        assert process.returncode == 0, complaint.decode()
    first, second = (load_file(tmp_path / f"{rank}.safetensors") for rank in range(2))
    alone = Gpt(replace(SIZES, dropout=0.0))
    loop = LoopSettings(steps=6, learning_rate=1e-2, check_every=3, patience=0, accumulate=2)
    learn(alone, next_token_loss, Stream(TEXTS, 20, 16, 4, 1), LATER, loop, quiet)
    for name, value in alone.state_dict().items():
        assert torch.equal(first[name], second[name])
        assert torch.allclose(first[name], value, atol=1e-5)


def test_likelihood_of_a_document_is_that_of_its_tokens_one_by_one() -> None:
    net = Gpt(SIZES).eval()
    documents = [[1, 2, 3], list(range(20)) * 4, []]
    sums, counts = log_likelihoods(net, documents, 20)
    assert counts.tolist() == [4, 81, 1]
    decoder = TorchDecoder(net)
    rows = torch.from_numpy(decoder.feed([20, 1, 2, 3])).log_softmax(-1)
    assert sums[0] == pytest.approx(sum(float(rows[i, token]) for i, token in enumerate([1, 2, 3, 20])), abs=1e-4)
    assert sums[1] / 81 == pytest.approx(-math.log(24), rel=0.1)

"""One training loop for language models: any network, any loss, any device, one process or several. It is stopped at any
moment and goes on as if it had not been: batches and randomness are functions of the seed and the step, and the rest lies
in one file that is either the old one or the whole new one (safetensors; no pickle is written or read).

AdamW (Loshchilov & Hutter 2019), Muon for hidden matrices where asked (Jordan et al. 2024, its step scaled to AdamW's: Liu et
al. 2025), warm-up and cosine (2017), clipped gradients (Pascanu et al. 2013), bfloat16 where the
device has it. A loss answers (sum, weight), and gradients are divided by the weight of the whole step, so that batches of
different lengths, accumulated or spread over processes, count each token once.

Several processes: `torchrun --nproc-per-node N ...` (its environment is found here)."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as as_safetensors
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from protocol.errors import BadSettings
from server.algorithms.gpt import Gpt, decay_groups, hidden_matrices
from server.datasets import write_whole
from server.training.circumstances import Progress

Batch = Mapping[str, Tensor]
Loss = Callable[[nn.Module, Batch], tuple[Tensor, Tensor]]
"""(network, batch) -> (summed loss, what it was summed over: tokens, pairs)."""
Batches = Callable[[int], Batch]
"""Batch number i of a training, the same whenever it is asked for."""
STATE, CURVE, PICTURE = "training.safetensors", "curve.jsonl", "curve.png"
IGNORED = -100
"""A target that teaches nothing."""
ALIKE = 4
"""A batch is a quarter of as many times its rows, drawn together: little of it is padding."""


@dataclass(frozen=True)
class LoopSettings:
    """One step sees `accumulate` batches in each process.

    matrix_rate: highest rate of Muon, which then learns the matrices of hidden layers, all else by AdamW at learning_rate
    (None: AdamW alone). warm_up: share of the steps. floor: last rate over the highest. patience: checks without a better
    validation loss before it stops (0: never). save_every, check_every: steps. device, precision: "auto" takes what is there;
    "float32" and "bfloat16" are obeyed. threads: None leaves them."""

    steps: int = 1000
    learning_rate: float = 1e-3
    matrix_rate: float | None = None
    floor: float = 0.1
    warm_up: float = 0.05
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    accumulate: int = 1
    check_every: int = 50
    patience: int = 5
    save_every: int = 200
    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    threads: int | None = 1
    seed: int = 7

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        return self.learning_rate * self.share(step)

    def share(self, step: int) -> float:
        """Of the highest rate, what a step learns with."""
        warm = max(round(self.warm_up * self.steps), 1)
        if step < warm:
            return (step + 1) / warm
        done = min((step - warm) / max(self.steps - warm, 1), 1.0)
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * done))


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the curve: mean losses since the last one and on the check batches (nats), things (tokens) a second."""

    step: int
    loss: float
    check: float
    rate: float
    per_second: float


@dataclass
class Learned:
    """What a training came to: the network holds its best weights. `finished`: not stopped from outside."""

    best: float
    best_step: int
    steps: int
    finished: bool
    curve: list[Point] = field(default_factory=list)


class _Progress(msgspec.Struct):
    """The part of the state that is no tensor."""

    settings: dict[str, Any]
    step: int = 0
    best: float | None = None
    best_step: int = 0
    waited: int = 0
    curve: list[Point] = []


@dataclass(frozen=True)
class Crew:
    """This process among all that train the same network."""

    rank: int = 0
    size: int = 1
    local: int = 0

    def summed(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.size > 1:
            dist.all_reduce(values)
        return values


def learn(
    net: nn.Module,
    loss: Loss,
    batches: Batches,
    check: Sequence[Batch],
    settings: LoopSettings,
    progress: Progress,
    folder: Path | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Learned:
    """Trains in place and leaves the weights with the lowest validation loss (the last ones if `check` is empty).

    folder: where the state, the curve and its picture are kept; a training that was begun there goes on. Raises BadSettings
    if it was begun with other settings or another network. stop: asked after every step; True saves and returns."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    with crew() as us:
        device = chosen_device(settings.device, us.local)
        net.to(device)
        loop = _Loop(net, loss, check, settings, us, device, folder)
        return loop.run(batches, progress, stop)


class _Loop:
    """The state of one training while it runs."""

    def __init__(
        self,
        net: nn.Module,
        loss: Loss,
        check: Sequence[Batch],
        settings: LoopSettings,
        us: Crew,
        device: torch.device,
        folder: Path | None,
    ) -> None:
        self.net, self.loss, self.check, self.settings, self.us, self.device = net, loss, check, settings, us, device
        self.folder = folder
        self.optimisers = _optimisers(net, settings)
        self.names = {id(value): name for name, value in net.named_parameters()}
        self.at = _Progress(settings=_comparable(settings))
        self.best: dict[str, Tensor] = {}
        if folder is not None and (folder / STATE).is_file():
            self._restore(folder / STATE)
        on_gpu = [device.index] if device.type == "cuda" else None
        self.shared = (
            DistributedDataParallel(net, device_ids=on_gpu, find_unused_parameters=True) if us.size > 1 else net
        )
        self.half = wants_half(settings.precision, device)

    def run(self, batches: Batches, progress: Progress, stop: Callable[[], bool]) -> Learned:
        s, at = self.settings, self.at
        total = seen = 0.0
        started, finished = time.perf_counter(), True
        while at.step < s.steps and not (s.patience and at.waited >= s.patience):
            summed, weight = self.step(batches)
            total, seen, at.step = total + summed, seen + weight, at.step + 1
            last = at.step == s.steps
            if at.step % s.check_every == 0 or last:
                spent = time.perf_counter() - started
                self._judge(total / max(seen, 1e-9), seen / max(spent, 1e-9))
                progress(at.step / s.steps, f"step {at.step} of {s.steps}, loss {at.curve[-1].check:.4f}")
                total = seen = 0.0
                started = time.perf_counter()
            if self._stopped(stop):
                finished = last
                break
            if at.step % s.save_every == 0:
                self._save()
        self._save()
        if self.best:
            self.net.load_state_dict(self.best, strict=False)
        self.net.eval()
        return Learned(math.inf if at.best is None else at.best, at.best_step, at.step, finished, list(at.curve))

    def step(self, batches: Batches) -> tuple[float, float]:
        """One update; (summed loss, weight) over all processes."""
        s, us, number = self.settings, self.us, self.at.step
        self.net.train()
        for optimiser, highest in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = highest * s.share(number)
            optimiser.zero_grad(set_to_none=True)
        torch.manual_seed((s.seed * 1_000_003 + number) * 1009 + us.rank)  # dropout is a function of the step
        sums = torch.zeros(2, device=self.device, dtype=torch.float64)
        for turn in range(s.accumulate):
            batch = self._moved(batches((number * s.accumulate + turn) * us.size + us.rank))
            with self._unsynchronised(turn < s.accumulate - 1), self._precision():
                summed, weight = self.loss(self.shared, batch)
                summed.backward()
            sums += torch.stack([summed.detach().double(), weight.detach().double()])
        us.summed(sums)
        self._update(float(sums[1]))
        return float(sums[0]), float(sums[1])

    def _update(self, weight: float) -> None:
        """Gradients are sums over this process's tokens, averaged over processes; here they become means over all tokens."""
        learning = [value for value in self.net.parameters() if value.grad is not None]
        for value in learning:
            assert value.grad is not None  # noqa: S101 - for the type checker
            value.grad.mul_(self.us.size / max(weight, 1e-9))
        nn.utils.clip_grad_norm_(learning, self.settings.clip, error_if_nonfinite=True)
        for optimiser, _ in self.optimisers:
            optimiser.step()

    def validation(self) -> float:
        """Mean loss over the check batches, which the processes share out."""
        self.net.eval()
        sums = torch.zeros(2, device=self.device, dtype=torch.float64)
        with torch.inference_mode(), self._precision():
            for batch in self.check[self.us.rank :: self.us.size]:
                summed, weight = self.loss(self.net, self._moved(batch))
                sums += torch.stack([summed.double(), weight.double()])
        self.us.summed(sums)
        return float(sums[0] / sums[1].clamp(min=1e-9))

    def _judge(self, loss: float, per_second: float) -> None:
        at = self.at
        value = self.validation() if self.check else loss
        point = Point(step=at.step, loss=loss, check=value, rate=self.settings.rate(at.step - 1), per_second=per_second)
        at.curve.append(point)
        if not self.check or at.best is None or value < at.best:
            at.best, at.best_step, at.waited = value, at.step, 0
            self.best = {name: part.detach().clone() for name, part in self.net.state_dict().items()}
        else:
            at.waited += 1
        if self.folder is not None and self.us.rank == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            body = b"".join(msgspec.json.encode(one) + b"\n" for one in at.curve)
            write_whole(self.folder / CURVE, body)
            draw_curve(self.folder / PICTURE, at.curve)

    def _save(self) -> None:
        if self.folder is None or self.us.rank != 0:
            return
        tensors = {f"net.{name}": value for name, value in self.net.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        for optimiser, _ in self.optimisers:
            for value, state in optimiser.state.items():
                tensors |= {f"{kind}.{self.names[id(value)]}": part for kind, part in state.items()}
        # shared and strided tensors are written one by one
        plain = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
        write_whole(self.folder / STATE, as_safetensors(plain, {"progress": msgspec.json.encode(self.at).decode()}))

    def _restore(self, path: Path) -> None:
        try:
            with safe_open(path, framework="pt", device=str(self.device)) as opened:
                file: Any = opened
                at = msgspec.json.decode(file.metadata()["progress"], type=_Progress)
                tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, msgspec.DecodeError, KeyError, TypeError) as error:
            raise BadSettings(f"{path} is not the state of a training ({error}): choose an empty folder") from error
        if at.settings != self.at.settings:
            changed = sorted(
                k for k in at.settings.keys() | self.at.settings if at.settings.get(k) != self.at.settings.get(k)
            )
            raise BadSettings(
                f"{path} was begun with another {', '.join(changed)}: use the same settings, or an empty folder"
            )
        own, theirs = self.net.state_dict(), _under("net.", tensors)
        if {n: v.shape for n, v in own.items()} != {n: v.shape for n, v in theirs.items()}:
            raise BadSettings(f"{path} holds another network: use the same sizes, or an empty folder")
        self.net.load_state_dict(theirs)
        self.at, self.best = at, _under("best.", tensors)
        for optimiser, _ in self.optimisers:
            for value in (value for group in optimiser.param_groups for value in group["params"]):
                name = self.names[id(value)]
                if f"exp_avg.{name}" in tensors:
                    optimiser.state[value] = {
                        "step": tensors[f"step.{name}"].cpu(),
                        "exp_avg": tensors[f"exp_avg.{name}"],
                        "exp_avg_sq": tensors[f"exp_avg_sq.{name}"],
                    }
                elif f"momentum_buffer.{name}" in tensors:
                    optimiser.state[value] = {"momentum_buffer": tensors[f"momentum_buffer.{name}"]}

    def _stopped(self, stop: Callable[[], bool]) -> bool:
        """Whether any process was told to stop; all of them stop then."""
        told = torch.tensor([float(stop())], device=self.device)
        return bool(self.us.summed(told) > 0)

    def _moved(self, batch: Batch) -> Batch:
        return {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}

    def _unsynchronised(self, more_to_come: bool) -> contextlib.AbstractContextManager[Any]:
        if more_to_come and isinstance(self.shared, DistributedDataParallel):
            return self.shared.no_sync()
        return contextlib.nullcontext()

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        return torch.autocast(self.device.type, dtype=torch.bfloat16) if self.half else contextlib.nullcontext()


def _optimisers(net: nn.Module, s: LoopSettings) -> list[tuple[torch.optim.Optimizer, float]]:
    """Each with its highest rate; together they learn everything that may."""
    matrices = hidden_matrices(net) if s.matrix_rate is not None else []
    known = {id(value) for value in matrices}
    groups = [
        group | {"params": [value for value in group["params"] if id(value) not in known]}
        for group in decay_groups(net, s.weight_decay)
    ]
    found: list[tuple[torch.optim.Optimizer, float]] = [
        (torch.optim.AdamW(groups, lr=s.learning_rate, betas=s.betas), s.learning_rate)
    ]
    if s.matrix_rate is not None and matrices:
        muon = torch.optim.Muon(matrices, lr=s.matrix_rate, weight_decay=s.weight_decay, adjust_lr_fn="match_rms_adamw")
        found.append((muon, s.matrix_rate))
    return found


@contextlib.contextmanager
def crew() -> Iterator[Crew]:
    """The processes that torchrun started (NCCL on GPUs, else gloo), or this one alone. Leaves a group as it found it."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or not dist.is_available():
        yield Crew()
        return
    begun = not dist.is_initialized()
    if begun:
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield Crew(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")))
    finally:
        if begun:
            dist.destroy_process_group()


def chosen_device(name: str, local: int = 0) -> torch.device:
    """ "auto": CUDA (this process's own), else Apple's, else the CPU."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda", local)
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def wants_half(precision: str, device: torch.device) -> bool:
    """Whether to compute in bfloat16. "auto" does on a GPU that has it; a CPU without matrix units gets slower by it."""
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return precision == "bfloat16"


def next_token_loss(net: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Cross-entropy of `targets` [B, T] (IGNORED: teaches nothing) after `ids` [B, T]; summed in float32."""
    logits, _ = net(batch["ids"])
    targets = batch["targets"].flatten()
    summed = functional.cross_entropy(logits.flatten(0, 1).float(), targets, ignore_index=IGNORED, reduction="sum")
    return summed, (targets != IGNORED).sum()


class Stream:
    """Stage 1: documents in one row, each followed by `end`; batches are windows at random places of it."""

    def __init__(self, documents: Sequence[Sequence[int]], end: int, length: int, batch: int, seed: int) -> None:
        flat = [np.asarray([*ids, end], dtype=np.int32) for ids in documents]
        self.tokens: NDArray[np.int32] = np.concatenate(flat) if flat else np.zeros(0, np.int32)
        self.length, self.rows, self.seed = min(length, len(self.tokens) - 1), batch, seed
        if self.length < 1:
            raise ValueError(f"{len(self.tokens)} tokens of text: at least two are needed")

    def __call__(self, number: int) -> Batch:
        random = np.random.default_rng((self.seed, number))
        return self._windows(random.integers(0, len(self.tokens) - self.length, self.rows))

    def in_order(self) -> list[Batch]:
        """Every whole window once, for validation; the rest of the row, where it is shorter than one, too."""
        starts = np.arange(0, len(self.tokens) - self.length, self.length)
        found = [self._windows(part) for part in np.array_split(starts, max(-(-len(starts) // self.rows), 1))]
        done = int(starts[-1]) + self.length
        if done + 1 < len(self.tokens):
            found.append(_pair(self.tokens[None, done:]))
        return found

    def _windows(self, starts: NDArray[np.int64]) -> Batch:
        return _pair(self.tokens[starts[:, None] + np.arange(self.length + 1)[None, :]])


class Examples:
    """Stage 2: (prompt, target) pairs; only the target's tokens teach. Batches are random rows of like length, padded at the
    right."""

    def __init__(
        self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], pad: int, length: int, batch: int, seed: int
    ) -> None:
        """Prompts that are too long lose their beginning. Raises ValueError where a target alone is too long."""
        if not pairs:
            raise ValueError("no examples to learn from")
        self.rows = [_row(prompt, target, length) for prompt, target in pairs]
        self.pad, self.batch, self.seed = pad, batch, seed

    def __call__(self, number: int) -> Batch:
        random = np.random.default_rng((self.seed, number))
        drawn = random.integers(0, len(self.rows), ALIKE * self.batch)
        by_length = sorted((self.rows[i] for i in drawn), key=lambda row: len(row[0]))
        begins = int(random.integers(0, ALIKE)) * self.batch
        return self._padded(by_length[begins : begins + self.batch])

    def in_order(self) -> list[Batch]:
        """Every example once, short ones together."""
        ordered = sorted(self.rows, key=lambda row: len(row[0]))
        return [self._padded(ordered[at : at + self.batch]) for at in range(0, len(ordered), self.batch)]

    def _padded(self, rows: Sequence[tuple[list[int], int]]) -> Batch:
        longest = max(len(ids) for ids, _ in rows)
        ids = np.full((len(rows), longest - 1), self.pad, dtype=np.int64)
        targets = np.full((len(rows), longest - 1), IGNORED, dtype=np.int64)
        for i, (row, begins) in enumerate(rows):
            ids[i, : len(row) - 1] = row[:-1]
            targets[i, begins - 1 : len(row) - 1] = row[begins:]
        return {"ids": torch.from_numpy(ids), "targets": torch.from_numpy(targets)}


def log_likelihoods(
    net: Gpt, documents: Sequence[Sequence[int]], end: int, rows: int = 16
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Natural log-probability of every document's tokens and its end, and how many they are; each document alone, after an
    `end`. A long one is read in windows that overlap by half, so that a token has half a context before it."""
    length = net.settings.context
    pieces: list[tuple[int, list[int], int]] = []  # (document, tokens, the first one that counts)
    for number, ids in enumerate(documents):
        whole = [end, *ids, end]
        pieces.append((number, whole[: length + 1], 1))
        for at in range(length + 1, len(whole), length - length // 2):
            begins = max(at - length // 2 - 1, 0)
            pieces.append((number, whole[begins : begins + length + 1], at - begins))
    pieces.sort(key=lambda piece: len(piece[1]))
    sums, counts = np.zeros(len(documents)), np.zeros(len(documents), dtype=np.int64)
    device = next(net.parameters()).device
    net.eval()
    with torch.inference_mode():
        for at in range(0, len(pieces), rows):
            some = pieces[at : at + rows]
            padded = np.full((len(some), len(some[-1][1])), end, dtype=np.int64)
            for row, (_, ids, _) in zip(padded, some, strict=True):
                row[: len(ids)] = ids
            given = torch.from_numpy(padded).to(device)
            logits = net(given[:, :-1])[0].float()
            chances = logits.log_softmax(-1).gather(2, given[:, 1:, None])[:, :, 0].cpu().numpy()
            for told, (number, ids, first) in zip(chances, some, strict=True):
                sums[number] += told[first - 1 : len(ids) - 1].sum(dtype=np.float64)
                counts[number] += len(ids) - first
    return sums, counts


def draw_curve(path: Path, curve: Sequence[Point]) -> None:
    """The losses over the steps, the learning rate beside them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    steps = [point.step for point in curve]
    panel.plot(steps, [point.loss for point in curve], color="#0f766e", label="learned from")
    panel.plot(steps, [point.check for point in curve], color="#b45309", label="held out")
    panel.set_xlabel("step")
    panel.set_ylabel("loss, nats")
    beside = panel.twinx()
    beside.plot(steps, [point.rate for point in curve], color="#94a3b8", linestyle=":")
    beside.set_ylabel("learning rate")
    panel.legend(loc="upper right")
    figure.savefig(path, dpi=100)


def _pair(rows: NDArray[np.int32]) -> Batch:
    whole = torch.from_numpy(rows.astype(np.int64))
    return {"ids": whole[:, :-1].contiguous(), "targets": whole[:, 1:].contiguous()}


def _row(prompt: Sequence[int], target: Sequence[int], length: int) -> tuple[list[int], int]:
    room = length + 1 - len(target)
    if not prompt or not target or room < 1:
        raise ValueError(f"prompt of {len(prompt)} and target of {len(target)} tokens; both are needed, {length} fit")
    kept = list(prompt)[-room:]
    return [*kept, *target], len(kept)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _comparable(settings: LoopSettings) -> dict[str, Any]:
    """What a begun training may not change; where it runs, and how often it is saved, it may."""
    free = {"device", "threads", "save_every"}
    told = {name: value for name, value in asdict(settings).items() if name not in free}
    return msgspec.json.decode(msgspec.json.encode(told), type=dict[str, Any])

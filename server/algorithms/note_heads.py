"""An encoder learns to judge notes: failure mode, event type and urgency at once, each by a linear head over the text's
vector (the mean of its tokens) and, where wished, over what the pooler made of the first token (Devlin et al. 2019,
fine-tuning; Sun et al. 2019, "How to Fine-Tune BERT for Text Classification").

Rare classes weigh more, by a power of their rarity. How long to learn is found on an inner part of the rows; then all rows
are learned from for as long."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from server.algorithms.bert import Bert, Float32s, Rows, padded, whole
from server.algorithms.descent import Descent, descend
from server.algorithms.teaching import Teaching

Labels = NDArray[np.int64]
UNTOLD = -1
"""Label of a row of which nobody said this."""


@dataclass(frozen=True)
class FineTuning:
    """pooled: whether the pooled first token is looked at too; a gateway's heads see the text's vector alone. fixed_layers:
    lowest layers, with the embeddings, that do not learn. rarity: power of a class's rarity in its weight (0: all alike, 1:
    all classes count the same). patience: epochs without a better check. refit: learn from all rows in the end, not only from
    those that were not checked on. unread: share of tokens, never the first, that are left out while learning, so that no
    answer hangs on one word. minutes: at most, of each of the two."""

    pooled: bool = False
    epochs: int = 20
    batch: int = 16
    learning_rate: float = 3e-4
    head_learning_rate: float = 3e-3
    decay: float = 0.01
    warm_up: float = 0.1
    smoothing: float = 0.05
    rarity: float = 0.25
    fixed_layers: int = 0
    check_share: float = 0.15
    patience: int = 4
    refit: bool = True
    unread: float = 0.0
    minutes: float | None = None
    seed: int = 7


class NoteHeads(nn.Module):
    """(ids, mask) -> logits [N, classes] of each kind of judgement."""

    def __init__(self, bert: Bert, classes: Mapping[str, int], *, pooled: bool = False) -> None:
        super().__init__()
        self.pooled = pooled
        self.bert = copy.deepcopy(bert)
        self.dropout = nn.Dropout(bert.settings.dropout)
        self.heads = nn.ModuleDict(
            {about: _unbiased(bert.settings.width * (1 + pooled), n) for about, n in classes.items()}
        )

    def forward(self, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        seen = self.dropout(self.seen(ids, mask))
        return {about: head(seen) for about, head in self.heads.items()}

    def seen(self, ids: Tensor, mask: Tensor) -> Tensor:
        """[N, d] or, with the pooled first token, [N, 2d]: each number of the text's unit vector about one in size."""
        tokens = self.bert(ids, mask)
        stretched = whole(tokens, mask) * tokens.shape[2] ** 0.5
        return torch.cat([stretched, self.bert.pooled(tokens)], dim=1) if self.pooled else stretched


def finetune(
    bert: Bert,
    rows: Rows,
    labels: Mapping[str, Labels],
    classes: Mapping[str, int],
    settings: FineTuning,
    progress: Callable[[float, str], None] | None = None,
    teaching: Teaching | None = None,
) -> NoteHeads:
    """Heads and an encoder fine-tuned together; `bert` itself stays as it is. labels: about -> [N], UNTOLD where nobody said;
    classes: about -> how many. progress: told the share done and what is going on. teaching: asked once for all rows with
    another encoder's logits by kind, also of rows without a label. Raises ValueError where labels and rows do not fit
    together."""
    for about, told in labels.items():
        if len(told) != len(rows) or (len(told) and int(told.max()) >= classes[about]):
            raise ValueError(f"{about}: {len(told)} labels of {classes[about]} classes do not fit {len(rows)} rows")
    if not any((told != UNTOLD).any() for told in labels.values()):
        raise ValueError("no row has a label: there is nothing to learn")
    lessons = _Lessons(bert, rows, labels, classes, settings, progress, teaching)
    learn, check = inner_split(next(iter(labels.values())), settings.check_share, settings.seed)
    if not len(check):
        return lessons.learned(np.arange(len(rows)), settings.epochs)
    checked = _Checked(lessons, check)
    heads = lessons.learned(learn, settings.epochs, checked)
    if settings.refit:
        return lessons.learned(np.arange(len(rows)), max(checked.best_epoch, 1))
    heads.load_state_dict(checked.best_weights or heads.state_dict())
    return heads


def losses(
    heads: NoteHeads, rows: Rows, labels: Mapping[str, Labels], settings: FineTuning, most: int
) -> Iterator[Tensor]:
    """Cross entropies of at most so many batches, evenly out of the rows."""
    lessons = _Lessons(heads.bert, rows, labels, {}, settings, None)
    places = np.unique(np.linspace(0, len(rows) - 1, min(most * settings.batch, len(rows))).astype(np.int64))
    for at in range(0, len(places), settings.batch):
        yield lessons.loss(heads, places[at : at + settings.batch])


def logits_of(heads: NoteHeads, rows: Rows, batch: int = 64) -> dict[str, Tensor]:
    """Of each kind of judgement the logits [N, classes], as a teacher tells them."""
    heads.eval()
    parts = [heads(*padded(rows[at : at + batch], heads.bert.settings)) for at in range(0, len(rows), batch)]
    return {about: torch.cat([part[about] for part in parts]) for about in heads.heads}


def judge(heads: NoteHeads, rows: Rows, batch: int = 64) -> dict[str, Float32s]:
    """Of each kind of judgement the chances [N, classes], not yet calibrated."""
    found: dict[str, list[Float32s]] = {about: [] for about in heads.heads}
    heads.eval()
    with torch.inference_mode():
        for at in range(0, max(len(rows), 1), batch):
            for about, logits in heads(*padded(rows[at : at + batch], heads.bert.settings)).items():
                found[about].append(torch.softmax(logits, dim=1).numpy())
    return {about: np.concatenate(parts) for about, parts in found.items()}


def inner_split(told: Labels, share: float, seed: int) -> tuple[Labels, Labels]:
    """Places to learn from and to check on: of each class the share, rounded by a lot, so that a class of one is learned."""
    order = np.random.default_rng(seed)
    check: list[int] = []
    for group in np.unique(told):
        members = order.permutation(np.flatnonzero(told == group))
        most = int(len(members) * share + order.random()) if len(members) > 1 else 0
        check += members[: min(most, len(members) - 1)].tolist()
    held = np.zeros(len(told), dtype=bool)
    held[check] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def class_weights(told: Labels, classes: int, rarity: float) -> Tensor:
    """[classes]: by rarity, the mean over rows being 1; a class that no row has weighs nothing."""
    counts = np.bincount(told[told != UNTOLD], minlength=classes).astype(float)
    weights = np.where(counts > 0, (counts.sum() / np.maximum(counts, 1)) ** rarity, 0.0)
    mean = (weights * counts).sum() / max(counts.sum(), 1)
    return torch.tensor(weights / (mean or 1.0), dtype=torch.float32)


@dataclass
class _Lessons:
    bert: Bert
    rows: Rows
    labels: Mapping[str, Labels]
    classes: Mapping[str, int]
    settings: FineTuning
    progress: Callable[[float, str], None] | None
    teaching: Teaching | None = None
    told: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.teaching is not None:
            with torch.no_grad():
                self.told = self.teaching.ask(self.rows)

    def learned(self, places: Labels, epochs: int, checked: _Checked | None = None) -> NoteHeads:
        """Heads after so many epochs over the rows at `places`, at the pace of the settings' epochs."""
        settings = self.settings
        torch.manual_seed(settings.seed)
        heads = NoteHeads(self.bert, self.classes, pooled=settings.pooled)
        fix(heads.bert, settings.fixed_layers)
        weights = {
            about: class_weights(told[places], self.classes[about], settings.rarity)
            for about, told in self.labels.items()
        }
        order, each = np.random.default_rng(settings.seed), -(-len(places) // settings.batch)
        shuffled = np.stack([order.permutation(places) for _ in range(max(epochs, 1))])

        def loss_of(step: int) -> Tensor:
            heads.train()
            epoch, at = divmod(step, each)
            return self.loss(
                heads, shuffled[epoch, at * settings.batch : (at + 1) * settings.batch], weights, settings.unread
            )

        def watch(steps: int, gone: float, loss: float) -> bool:
            if self.progress is not None:
                self.progress(gone, f"reading heads, loss {loss:.3f}")
            if checked is not None and steps % each == 0 and not checked.goes_on(heads, steps // each):
                return False
            return steps < epochs * each

        plan = Descent(
            settings.epochs * each, settings.minutes, settings.learning_rate, settings.decay, warm_up=settings.warm_up
        )
        faster = settings.head_learning_rate / settings.learning_rate
        descend([(heads.bert, 1.0), (heads.heads, faster)], loss_of, plan, watch)
        return heads.eval()

    def loss(
        self, heads: NoteHeads, places: Labels, weights: Mapping[str, Tensor] | None = None, unread: float = 0.0
    ) -> Tensor:
        """Mean over the kinds of judgement of the cross entropy of what is told; with weights, smoothed too."""
        ids, mask = padded([self.rows[i] for i in places], heads.bert.settings)
        if unread > 0:
            mask[:, 1:] *= torch.rand(mask[:, 1:].shape) >= unread
        logits = heads(ids, mask)
        truth = self._truth(logits, places, weights)
        if self.teaching is None or weights is None:
            return truth
        at = torch.from_numpy(places)
        return self.teaching.mixed(truth, logits, {about: said[at] for about, said in self.told.items()})

    def _truth(self, logits: Mapping[str, Tensor], places: Labels, weights: Mapping[str, Tensor] | None) -> Tensor:
        total = 0.0 * torch.stack([one.sum() for one in logits.values()]).sum()  # of a batch that nobody labelled, too
        told = 0
        for about, labels in self.labels.items():
            wanted = torch.from_numpy(labels[places])
            if not bool((wanted != UNTOLD).any()):
                continue
            told += 1
            total = total + functional.cross_entropy(
                logits[about],
                wanted,
                weight=None if weights is None else weights[about],
                ignore_index=UNTOLD,
                label_smoothing=0.0 if weights is None else self.settings.smoothing,
            )
        return total / max(told, 1)


class _Checked:
    """The best epoch by the loss on rows that nothing is learned from."""

    def __init__(self, lessons: _Lessons, places: Labels) -> None:
        self.lessons, self.places = lessons, places
        self.best_loss, self.best_epoch, self.waited = float("inf"), 0, 0
        self.best_weights: dict[str, Tensor] = {}

    def goes_on(self, heads: NoteHeads, epoch: int) -> bool:
        """Whether another epoch may still help."""
        heads.eval()
        with torch.inference_mode():
            loss = float(self.lessons.loss(heads, self.places))
        if loss < self.best_loss:
            self.best_loss, self.best_epoch, self.waited = loss, epoch, 0
            self.best_weights = {name: value.clone() for name, value in heads.state_dict().items()}
        else:
            self.waited += 1
        return self.waited < self.lessons.settings.patience


def fix(bert: Bert, layers: int) -> None:
    """The embeddings and the lowest layers learn no more; 0: all learn."""
    if layers <= 0:
        return
    for module in (bert.embeddings, *list(bert.encoder.layer)[:layers]):
        module.requires_grad_(False)


def _unbiased(inputs: int, classes: int) -> nn.Linear:
    """A head that says nothing yet."""
    head = nn.Linear(inputs, classes)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head

"""An encoder learns to say of texts what a larger one says: the text's vector and its tokens', through a map that is learned
with it and then thrown away (Romero et al. 2015, "FitNets"; Jiao et al. 2020, "TinyBERT"). Both read the same tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from server.algorithms.bert import Bert, Rows, padded, whole
from server.algorithms.descent import Descent, Watch, descend
from server.algorithms.masking import dealt


@dataclass(frozen=True)
class Imitation:
    """batch: texts a step. of_tokens: weight of the tokens' vectors beside the text's."""

    descent: Descent = field(default_factory=lambda: Descent(steps=300, learning_rate=1e-3))
    batch: int = 64
    of_tokens: float = 1.0
    seed: int = 7


def imitate(
    bert: Bert,
    teacher: Bert,
    rows: Rows,
    settings: Imitation,
    likened: Callable[[int, int], nn.Module],
    watch: Watch | None = None,
) -> list[float]:
    """Changes `bert`; answers each step's loss. likened: from the two lengths of vectors to a module that learns and says how
    far vectors [..., d] are from others [..., D]. Raises ValueError if there is nothing to read."""
    if not rows:
        raise ValueError("nothing to read: give texts")
    torch.manual_seed(settings.seed)
    order = np.random.default_rng(settings.seed)
    batches = dealt([len(row) for row in rows], settings.batch, order)
    texts, tokens = (likened(bert.settings.width, teacher.settings.width) for _ in range(2))

    def loss_of(_step: int) -> Tensor:
        ids, mask = padded([rows[i] for i in next(batches)], bert.settings)
        with torch.no_grad():
            told = teacher(ids, mask)
        said, stands = bert(ids, mask), mask.bool()
        loss: Tensor = texts(whole(said, mask), whole(told, mask))
        loss += settings.of_tokens * tokens(said[stands], told[stands])
        return loss

    teacher.eval()
    bert.train()
    losses = descend([(bert, 1.0), (texts, 1.0), (tokens, 1.0)], loss_of, settings.descent, watch)
    bert.eval()
    return losses

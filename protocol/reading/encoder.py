"""What reading needs of an encoder, whoever runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from protocol.windows import Floats


@dataclass(frozen=True)
class Encoded:
    """tokens [T, d]: a vector for each token of the text; places int [T, 2]: its first and last character (exclusive);
    whole [d]: the text's vector, of unit length. cut: characters of the text beyond the encoder's context."""

    tokens: Floats
    places: NDArray[np.int64]
    whole: Floats
    cut: int = 0


class Encoder(Protocol):
    """A text encoder with its tokenizer."""

    @property
    def width(self) -> int:
        """Length d of a vector."""
        ...

    def encode(self, text: str) -> Encoded:
        """Vectors of a text; an empty text has no tokens and a zero vector."""
        ...

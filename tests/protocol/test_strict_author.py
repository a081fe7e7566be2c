"""Free prose stays where it is true, is written strictly where it is not, and both languages say the same facts."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from protocol.reading.tokens import BytePairs, tokenizer
from protocol.reports import ModelRef
from protocol.writing.author import Author, LanguageModel, insertions, language_model, why
from protocol.writing.decoder import WriterSpec
from protocol.writing.facts import Fact, Kind, Language, Mode
from protocol.writing.frames import Clause, Frames, Heading
from protocol.writing.prompt import lead, prefix, words
from protocol.writing.realise import Alternatives, Facts, write_document
from protocol.writing.verify import complaints_of

END, VOCABULARY = 256, 257
SPEC = WriterSpec(layers=1, kv_heads=1, head_width=8, vocabulary=VOCABULARY, context=900, end=END)
PIECES = [*(bytes([b]) for b in range(256)), b"<|end|>"]
FACTS = [
    Fact(key="kind", kind=Kind.CATEGORY, value="high"),
    Fact(key="peak", kind=Kind.NUMBER, value=81.5, unit="°C", evidence=0),
    Fact(key="beyond", kind=Kind.NUMBER, value=3.0, unit="°C", evidence=0),
]
FRAMES = Frames(
    document="d",
    version=1,
    headings=[Heading(section="s", en="Seen", zh="情况")],
    clauses=[
        Clause(id="t", section="title", en=["Too hot"], zh=["过热"]),
        Clause(
            id="rose",
            section="s",
            needs=["peak"],
            when={"kind": ["high"]},
            en=["The temperature rose to <peak> [1].", "Too hot: <peak> was reached [1]."],
            zh=["温度升至 <peak> [1]。", "过热：达到 <peak> [1]。"],
        ),
        Clause(
            id="beyond",
            section="s",
            needs=["beyond"],
            mandatory=False,
            en=["That is <beyond> too much.", "It is <beyond> over what is allowed."],
            zh=["超出 <beyond>。", "比允许值高 <beyond>。"],
        ),
    ],
)


def encode(text: str) -> list[int]:
    return list(text.encode())


class Reciter:
    """Wants to write a given text for each (section, language)."""

    def __init__(self, texts: dict[Language, str]) -> None:
        told = prefix(FRAMES, FACTS)
        self.rows = [[*encode(told + lead("s", language) + text), END] for language, text in texts.items()]
        self.vocabulary, self.context = VOCABULARY, 900
        self.fed: list[int] = []

    @property
    def length(self) -> int:
        return len(self.fed)

    def feed(self, ids: Sequence[int]) -> NDArray[np.float32]:
        out = np.zeros((len(ids), VOCABULARY), dtype=np.float32)
        for row, token in zip(out, ids, strict=True):
            self.fed.append(token)
            for text in self.rows:
                if len(text) > len(self.fed) and text[: len(self.fed)] == self.fed:
                    row[text[len(self.fed)]] = 9.0
        return out

    def rewind(self, length: int) -> None:
        del self.fed[length:]


def written(en: str, zh: str) -> tuple[Author, list[str], list[Mode]]:
    model = LanguageModel(
        Reciter({"en": words(en, "en"), "zh": words(zh, "zh")}),
        encode,
        SPEC,
        ModelRef("writer", "gpt", 1),
        Mode.FREE,
        PIECES,
    )
    author = Author(model, FRAMES, FACTS, lambda: 0.0)
    section = write_document(FRAMES, FACTS, author, complaints_of).sections[0]
    return author, [section.text_en, section.text_zh], [section.mode_en, section.mode_zh]


def test_true_prose_stays_in_both_languages() -> None:
    author, texts, modes = written(
        "In short, the temperature rose to <peak> [1]. It is <beyond> over what is allowed.",
        "总之，温度升至 <peak> [1]。超出 <beyond>。",
    )
    assert modes == [Mode.FREE, Mode.FREE]
    assert texts[0] == "In short, the temperature rose to 81.5 °C [1]. It is 3.00 °C over what is allowed."
    assert texts[1] == "总之，温度升至 81.5 °C [1]。超出 3.00 °C。"
    assert (author.rejected, author.fell) == ({}, {})


@pytest.mark.parametrize(
    "prose",
    [
        "The temperature fell to <peak> [1].",
        "The temperature rose to <beyond> [1].",
        "The temperature rose to <peak> [1]. Replace the pump.",
        "It is <beyond> over what is allowed.",
        "The temperature never rose to <peak> [1].",
    ],
)
def test_prose_that_is_not_true_is_written_strictly_in_both_languages(prose: str) -> None:
    author, texts, modes = written(prose, "温度升至 <peak> [1]。")
    assert modes == [Mode.STRICT, Mode.STRICT]
    assert ("s", "en") in author.rejected
    assert "81.5 °C" in texts[0]
    assert "81.5 °C" in texts[1]


def test_chinese_prose_that_says_other_facts_is_written_strictly_with_the_facts_of_the_english() -> None:
    author, texts, modes = written("The temperature rose to <peak> [1].", "温度升至 <peak> [1]。超出 <beyond>。")
    assert modes == [Mode.FREE, Mode.STRICT]
    assert author.rejected == {("s", "zh"): "the two languages say different facts"}
    assert texts[1] == "温度升至 81.5 °C [1]。"


def test_a_model_without_the_bytes_of_its_tokens_writes_strictly() -> None:
    model = LanguageModel(Reciter({}), encode, SPEC, ModelRef("writer", "gpt", 1), Mode.FREE)
    author = Author(model, FRAMES, FACTS, lambda: 0.0)
    section = write_document(FRAMES, FACTS, author, complaints_of).sections[0]
    assert section.mode_en is Mode.STRICT
    assert "tokens" in author.rejected["s", "en"]
    assert why(author) == {}


def test_prose_may_insert_the_slots_and_marks_of_its_section() -> None:
    asked = Alternatives("s", "zh", Facts(FACTS), tuple(FRAMES.clauses[1:]))
    assert insertions(asked) == ["<peak>", "<beyond>", "[1]"]


TOKENIZER = {
    "model": {"type": "BPE", "vocab": {"a": 0, "Ã": 1, "©": 2, "Ġa": 3}, "merges": []},
    "added_tokens": [{"id": 4, "content": "<peak>", "special": True}],
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
}


def test_a_byte_level_tokenizer_tells_the_bytes_of_its_tokens() -> None:
    words_ = tokenizer(msgspec.json.encode(TOKENIZER))
    assert isinstance(words_, BytePairs)
    assert [words_.piece(i) for i in range(6)] == [b"a", b"\xc3", b"\xa9", b" a", b"<peak>", b""]
    spec = msgspec.structs.replace(SPEC, vocabulary=6)
    model = language_model(Reciter({}), words_, spec, ModelRef("writer", "gpt", 1))
    assert model.encode("<peak>aé") == [4, 0, 1, 2]
    assert list(model.pieces) == [words_.piece(i) for i in range(6)]


def test_a_tokenizer_that_changes_what_it_reads_is_no_writers() -> None:
    class Other:
        vocabulary = 3

    with pytest.raises(ValueError, match="byte-level"):
        language_model(Reciter({}), Other(), SPEC, ModelRef("writer", "gpt", 1))  # type: ignore[arg-type]

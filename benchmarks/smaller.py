"""Smaller by a teacher and by pruning: what a student is worth beside its teacher, and half a network beside the whole.

    python benchmarks/smaller.py --data DIR [--subset text|words|lives|sensor] [--seeds 5] [--quick] [--json]

DIR holds (below it) OSHA's accident abstracts (osha*.csv[.gz]), whose titles are read for the type of event; C-MAPSS FD001
(train_, test_ and RUL_FD001.txt[.gz]), whose engines' remaining life is foreseen while four in five of those learned from
still run; the manuals of a machine control (linuxcnc.jsonl[.gz]), whose next token is told by a small GPT; and the hourly
electricity transformer data (ETTh1.csv[.gz]), whose seven columns are forecast a day ahead by one network. A part whose file
is absent is left out.

Student: at most a quarter of the teacher's parameters. "alone" is the same student from the same start with as many steps of
the same rows and the same seeds, without a teacher. Quality: share of right titles, RMSE, nats a token, mean absolute error.
Parameters of both were chosen on other rows than the test part (text: those whose hash is 1 modulo 5; lives: every fourth
training engine; sensor: rows 8640 to 11520), those of the language model on nothing.
Pruned: half of each layer's hidden units (LSTM) or heads and inner units (BERT, GPT) are taken out in four steps, with
training in between; timed on onnxruntime, one row or 32 tokens one by one, one thread, the graphs in turn. int8 of the GPT:
weights in blocks. "fresh" is a network of the pruned one's size trained from the start (BERT: on the question alone).

Test parts: titles whose sha256 of summary_nr is 0 modulo 5; the test engines; files as language_model.py splits them; rows
11520 to 14400 of ETTh1.
--quick: two seeds, few steps."""

from __future__ import annotations

import contract  # isort: skip - sets one thread before numpy comes

import sys

import smaller_lives
import smaller_sensor
import smaller_text
import smaller_words

PARTS = {
    "text": (smaller_text.measure, "osha*.csv*"),
    "lives": (smaller_lives.measure, "train_FD001.txt*"),
    "words": (smaller_words.measure, "linuxcnc.jsonl*"),
    "sensor": (smaller_sensor.measure, "ETTh1.csv*"),
}


def measure(sheet: contract.Sheet) -> None:
    """Each part whose file is there."""
    wanted = sheet.options.subset
    if wanted and wanted not in PARTS:
        raise SystemExit(f"smaller: --subset {wanted}: give one of {', '.join(PARTS)}")
    found = False
    for name, (part, pattern) in PARTS.items():
        if wanted not in ("", name):
            continue
        if not any(sheet.options.train.rglob(pattern)):
            sheet.note(f"no {pattern} in the folder: the part {name} is left out")
            continue
        part(sheet, sheet.find(sheet.options.train, pattern)[0])
        found = True
    if not found:
        raise SystemExit("smaller: nothing to measure in this folder")


if __name__ == "__main__":
    sys.exit(contract.run("smaller", __doc__, measure))

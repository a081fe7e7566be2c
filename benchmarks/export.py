"""What packing makes of each kind of network: bytes, what it costs on held-out rows, and time.

    python benchmarks/export.py --data DIR [--subset lstm|reader|writer] [--seeds 5] [--quick] [--json]

DIR holds (below it) the hourly electricity transformer data (ETTh1.csv[.gz]) and OSHA's accident abstracts (osha*.csv[.gz]).
The writer makes its own reports and learns from those in `edited_reports.json`. A part whose file is absent is left out.

Each network is trained here and packed by the product's own export (`export/forms.py`), which also measures what a form
costs: the task's figure on held-out rows, single answers there, and on rows out of the ordinary. Bytes are those of the graph
in the bundle; float bytes those of the float32 form, which went through the same tidying; beside it the same over the float
graph as torch's exporter wrote it. Times: one row, one thread, calls in turn, the least of many.

lstm     2 layers of 64 on seven columns of ETTh1, a window of three days, a day ahead; trained and split as in
         `smaller.py`; every seed is packed, the mean change counts
reader   a BERT of 4 layers of 192, pre-trained and fine-tuned here for the type of event of accident titles; the held-out
         titles are those of `smaller.py`
writer   a GPT of 4 layers of 128, taught as in `report_faithfulness.py`; likelihood of sections of held-out edited reports.
         Sizes and speed also of 8 layers of 512, random weights (they change neither)
TFLite   the LSTM and the BERT through the runtime that gateways have, where a converter is (MILLWRIGHT_TFLITE_PYTHON)

--quick: one seed, networks that hardly learned, no TFLite; nothing is judged."""

from __future__ import annotations

import contract  # isort: skip - sets one thread before numpy comes

import sys

import export_lstm
import export_reader
import export_writer
import torch

PARTS = {"lstm": (export_lstm.measure, "ETTh1.csv*"), "reader": (export_reader.measure, "osha*.csv*")}
WRITER = "writer"


def measure(sheet: contract.Sheet) -> None:
    """Each part whose file is there."""
    wanted = sheet.options.subset
    if wanted and wanted not in (*PARTS, WRITER):
        raise SystemExit(f"export: --subset {wanted}: give one of {', '.join((*PARTS, WRITER))}")
    torch.set_num_threads(1)
    for name, (part, pattern) in PARTS.items():
        if wanted not in ("", name):
            continue
        if not any(sheet.options.train.rglob(pattern)):
            sheet.note(f"no {pattern} in the folder: the part {name} is left out")
            continue
        part(sheet, sheet.find(sheet.options.train, pattern)[0])
    if wanted in ("", WRITER):
        export_writer.measure(sheet)


if __name__ == "__main__":
    sys.exit(contract.run("export", __doc__, measure))

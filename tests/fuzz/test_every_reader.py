"""Whatever decodes text or bytes that come from outside is reached by the examples of a target: a new reader is fuzzed, or it
is named here with the reason why it need not be."""

from __future__ import annotations

import ast
import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.coverage import ROOT, Lines
from tests.fuzz.targets import every_target

PACKAGES = ("protocol", "edge_agent", "server", "export")
READS = {
    "msgspec.json.decode", "msgspec.msgpack.decode", "msgspec.convert", "json.loads", "json.load", "tomllib.loads",
    "zipfile.ZipFile", "csv.reader", "csv.DictReader", "np.load", "np.frombuffer", "np.fromstring", "gzip.open",
    "gzip.GzipFile", "datetime.fromisoformat", "datetime.strptime", "struct.unpack", "bytes.fromhex", "base64.b64decode",
    "load_pem_private_key", "load_pem_public_key", "x509.load_pem_x509_certificate", "x509.load_pem_x509_csr",
    "serialization.load_pem_private_key", "parse_qs", "safe_open", "pickle.loads", "yaml.safe_load", "ast.literal_eval",
}  # fmt: skip
"""Calls that make something of what somebody has written."""


def calls() -> Iterator[tuple[str, int, str]]:
    """(file, line, call) of every one in the product."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and (name := ast.unparse(node.func)) in READS:
                    yield str(path.relative_to(ROOT)), node.lineno, name


@pytest.mark.filterwarnings("ignore")  # numpy says of a NaN that it is one
def test_every_reader_is_reached_by_a_target_or_named_with_its_reason(tmp_path: Path) -> None:
    reached = lines_of_examples(tmp_path)
    missed = {f"{file}: {name}" for file, line, name in calls() if (file, line) not in reached}
    unnamed = sorted(one for one in missed if not any(one.startswith(place) for place in NOT_FUZZED))
    assert unnamed == [], "add a target, or name it in NOT_FUZZED with the reason"
    stale = [place for place in NOT_FUZZED if not any(one.startswith(place) for one in missed)]
    assert stale == [], "named without need"


def lines_of_examples(folder: Path) -> set[tuple[str, int]]:
    """(file, line) of the product that the examples of all targets reach, and what once broke them."""
    lines = Lines()
    for target in every_target(folder).values():
        for data in (*target.seeds, *target.found()):
            with contextlib.suppress(*target.raises):
                lines.new(functools.partial(target.read, data))
    return {(code.co_filename.removeprefix(f"{ROOT}/"), line) for code, line in lines.reached}


DIGEST = "frozen by this server, and read only if its SHA-256 is the one in the database"
STORED = "a row that was stored as this type, and is checked again"
OWN = "what this process, or a child of it, has just written"
SITE = "a site that a demonstration or a drill has made itself"
NOT_FUZZED = {
    "protocol/reading/reader.py: np.frombuffer": "packs words of ours",
    "protocol/reading/words.py: np.frombuffer": "packs words of ours",
    "server/algorithms/span_tagger.py: np.frombuffer": "packs words of ours",
    "edge_agent/backwards.py: json.loads": "two constants",
    "edge_agent/enrolment.py: load_pem_private_key": "the key was read and written again a moment before",
    "edge_agent/enrolment.py: x509.load_pem_x509_certificate": "the identity in use, which was loaded before",
    "edge_agent/once/recommend.py: msgspec.json.decode": "needs a trained hybrid; as `bundle_layout`, for its own columns",
    "edge_agent/privacy.py: msgspec.convert": OWN,
    "edge_agent/runtimes/apart.py: msgspec.json.decode": OWN,
    "edge_agent/runtimes/lite.py: base64.b64decode": "a constant",
    "edge_agent/runtimes/machine.py: base64.b64decode": "a constant",
    "edge_agent/runtimes/machine.py: msgspec.json.decode": OWN,
    "server/broker.py: msgspec.convert": STORED,
    "server/datasets.py: msgspec.convert": STORED,
    "server/datasets.py: np.frombuffer": OWN,
    "server/datasets.py: msgspec.json.decode": DIGEST,
    "server/datasets.py: np.load": DIGEST,
    "server/lives.py: np.load": DIGEST,
    "server/edits.py: msgspec.convert": STORED,
    "server/demo/": SITE,
    "server/drill/": SITE,
    "server/training/language.py: ": "a training of this server takes up where it stopped",
    "server/workbench/sizes.py: msgspec.json.decode": OWN,
    "export/lite_converter.py: ": OWN,
    "export/to_tflite.py: ": OWN,
}
"""Beginning of "file: call" -> why nobody outside can reach it."""


@pytest.mark.parametrize("place", NOT_FUZZED)
def test_whatever_is_left_out_is_a_file_of_the_product(place: str) -> None:
    assert (ROOT / place.partition(":")[0]).exists()

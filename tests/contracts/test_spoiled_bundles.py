"""A bundle of every learner, each of its members spoiled in turn: refused with the reason, never another error, never a model
that is half there."""

from __future__ import annotations

import contextlib
import random
import warnings
from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from edge_agent.runtimes import load
from protocol import arrays
from protocol.bundles import LITE, PASSPORT, TOKENIZER, digest, unpack
from protocol.errors import BadBundle, Reason
from tests import lite_files
from tests.bundles import members, rewritten, zipped
from tests.contracts.test_every_learner import LEARNERS, Learner, learned, of

every = pytest.mark.parametrize("learner", LEARNERS, ids=[learner.name for learner in LEARNERS])
ROUNDS = 6
"""How often each member is spoiled anew by somebody who mends the list of files."""


def _flipped(body: bytes, drawn: random.Random) -> bytes:
    at = drawn.randrange(len(body))
    return body[:at] + bytes([body[at] ^ (1 << drawn.randrange(8))]) + body[at + 1 :]


def _cut(body: bytes, drawn: random.Random) -> bytes:
    return body[: drawn.randrange(len(body))]


HARM: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "a bit": _flipped,
    "cut": _cut,
    "empty": lambda _body, _drawn: b"",
    "longer": lambda body, _drawn: body + b"\0",
    "swapped": lambda body, _drawn: body[::-1],
}


def refused(archive: bytes, named: str = "") -> BadBundle:
    with pytest.raises(BadBundle) as why:
        load(archive, named or digest(archive))
    assert why.value.detail
    return why.value


@every
def test_no_member_may_be_altered_cut_missing_renamed_doubled_or_added(learner: Learner) -> None:
    archive = learned(learner).archive
    held, drawn = members(archive), random.Random(1)
    for name, body in held.items():
        others = [(other, kept) for other, kept in held.items() if other != name]
        for harm in HARM.values():
            spoiled = zipped(*others, (name, harm(body, drawn)))
            assert refused(spoiled, digest(archive)).reason is Reason.DIGEST_MISMATCH
            if name == PASSPORT:  # a changed word of it is not to be told from a right one, but by the digest
                _right_or_refused(spoiled)
            else:
                assert name in refused(spoiled).detail
        assert name in refused(zipped(*others)).detail
        assert refused(zipped(*others, (f"tables/renamed_{len(name)}.npy", body))).detail
        assert refused(zipped(*others, (f"elsewhere/{name}", body))).reason is Reason.BAD_ARCHIVE
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # zipfile warns its writer
            assert "each once" in refused(zipped(*others, (name, body), (name, body))).detail
    assert "is not on the list" in refused(zipped(*held.items(), ("tables/more.npy", b"x"))).detail


def test_a_tflite_file_is_held_to_the_same_rules() -> None:
    """Listed anew it is tried in a process of its own, which the file may end; the graph beside it serves on."""
    made = of("edge_agent/test_lite_runtime.py").sealed(lite_files.forecaster_graph(), lite_files.forecaster())
    held, drawn = members(made), random.Random(3)
    others = [(name, body) for name, body in held.items() if name != LITE]
    assert LITE in refused(zipped(*others)).detail
    for harm in HARM.values():
        spoiled = harm(held[LITE], drawn)
        assert LITE in refused(zipped(*others, (LITE, spoiled))).detail
        mended = rewritten(made, {LITE: spoiled})
        assert load(mended, digest(mended)).engine.startswith("onnxruntime") or harm is HARM["a bit"]
    assert "disagree about" in refused(rewritten(made, {LITE: None})).detail
    assert "disagree about" in refused(rewritten(made, {}, lite=None)).detail


@every
def test_what_was_spoiled_and_listed_anew_is_refused_or_still_right(learner: Learner) -> None:
    """Whoever mends the list of files comes further: then the parts must fit one another, and the golden vectors decide."""
    archive = learned(learner).archive
    held, drawn = members(archive), random.Random(2)
    for name in sorted(set(held) - {PASSPORT}):
        for harm in HARM.values():
            for _ in range(ROUNDS if harm is _flipped else 1):
                _right_or_refused(rewritten(archive, {name: harm(held[name], drawn)}))
        _right_or_refused(rewritten(archive, {name: None}))


@every
def test_tables_of_other_kinds_shapes_and_values_are_refused_or_still_right(learner: Learner) -> None:
    archive = learned(learner).archive
    for name in sorted(one for one in members(archive) if one.endswith(".npy")):
        was = arrays.read(name, members(archive)[name])
        for other in _others(was):
            _right_or_refused(rewritten(archive, {name: arrays.written(other)}))


@every
def test_a_passport_that_does_not_fit_its_tables_is_refused_or_still_right(learner: Learner) -> None:
    archive = learned(learner).archive
    passport = msgspec.json.decode(members(archive)[PASSPORT])
    for name, value in passport.items():
        if name == "files":
            continue
        for other in (
            None,
            [],
            {},
            "",
            0,
            -1,
            1e300,
            True,
            [value],
            value[1:] if isinstance(value, list | str) else None,
        ):
            if other != value:
                _right_or_refused(rewritten(archive, {}, **{name: other}))
        if isinstance(value, dict):
            for inner in value:
                _right_or_refused(rewritten(archive, {}, **{name: {k: v for k, v in value.items() if k != inner}}))


@pytest.mark.parametrize(
    "learner", [one for one in LEARNERS if one.name in ("report.writer", "notes")], ids=lambda one: one.name
)
def test_a_tokenizer_of_another_model_is_refused(learner: Learner) -> None:
    archive = learned(learner).archive
    other = next(
        one for one in LEARNERS if one.name == ("notes" if learner.name == "report.writer" else "report.writer")
    )
    strange = unpack(learned(other).archive).texts[TOKENIZER]
    refused(rewritten(archive, {f"texts/{TOKENIZER}": strange}))
    refused(rewritten(archive, {f"texts/{TOKENIZER}": None}))
    refused(rewritten(archive, {f"texts/{TOKENIZER}": b"{}"}))


def _others(was: np.ndarray) -> list[np.ndarray]:  # type: ignore[type-arg]
    changed = [was[:0], was.reshape(-1), was[None], np.concatenate([was, was])]
    if was.dtype.kind == "f":
        changed += [
            np.full_like(was, np.nan),
            np.full_like(was, np.inf),
            was.astype(np.int64) if _tame(was) else was[:1],
        ]
    else:
        top = np.iinfo(was.dtype).max if was.dtype.kind in "iu" else True
        changed += [np.full_like(was, top), was.astype(np.float64)]
        if was.dtype.kind == "i":
            changed.append(np.full_like(was, -1))
    return [one for one in changed if one.shape != was.shape or one.dtype != was.dtype or not np.array_equal(one, was)]


def _tame(was: np.ndarray) -> bool:  # type: ignore[type-arg]
    return bool(np.isfinite(was).all() and (np.abs(was.astype(np.float64)) < 1e15).all())


def _right_or_refused(archive: bytes) -> None:
    """Warnings count as errors in tests: what a spoiled table makes numpy say is no business of these."""
    with warnings.catch_warnings(), contextlib.suppress(BadBundle):
        warnings.simplefilter("ignore", RuntimeWarning)
        assert all(one.share <= 1 + 1e-9 for one in load(archive, digest(archive)).proof)

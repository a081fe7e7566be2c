"""Runs bundles: a graph by onnxruntime or TFLite, tables by numpy. The only folder that imports an inference engine.

`load` proves a bundle on this very CPU before anything is answered with it: its golden vectors must come out, of each form
that it holds. A form of which they do not is passed over with the reason; a bundle without a right form is refused."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.config import FASTEST, ONNXRUNTIME, TFLITE, EngineName, RuntimeSettings
from edge_agent.runtimes.apart import proven_apart
from edge_agent.runtimes.choice import choose, forms, least_us
from edge_agent.runtimes.engine import ONE_THREAD, Engine, OnnxEngine
from edge_agent.runtimes.engine import session as graph_session
from edge_agent.runtimes.lite import LiteEngine
from edge_agent.runtimes.proof import Proven, proven, right_among_neighbours
from edge_agent.runtimes.text_graphs import GraphEncoder, OnnxDecoder
from protocol.bundles import TEXT_OF_FRAMES, TOKENIZER, Bundle, Golden, Passport, Runtime, unpack
from protocol.errors import BadBundle, Reason, Refused
from protocol.reading.reader import Reader, read_golden_texts, reader_of
from protocol.reading.tokens import Tokenizer, golden_tokens, tokenizer
from protocol.reports import ModelRef
from protocol.tables import Hybrid, Monitor, Neighbours, Ranker, Ridge, StateSpace, TableModel, Tables, Trees
from protocol.text_vectors import TextVectors
from protocol.writing.frames import read_frames

ROWS_A_CALL = 32
"""Of one call of a graph: more of them gain little, and their memory grows with the number."""


@dataclass
class LoadedModel:
    """A proven bundle: `session` (a graph), `table` or `decoder` (a language model, with its `tokenizer`) is set; `text`
    understands the words of new items; `texts` are the bundle's catalogues. engine, engine_why: what runs its graph (empty:
    there is none), and why that. proof: how near its golden vectors came out; together: they do so also beside other rows in
    one call."""

    passport: Passport
    digest: str
    session: Engine | None = None
    table: TableModel | None = None
    text: TextVectors | None = None
    decoder: OnnxDecoder | None = None
    tokenizer: Tokenizer | None = None
    texts: dict[str, bytes] = field(default_factory=dict)
    latency_us: float = 0.0
    engine: str = ""
    engine_why: str = ""
    proof: tuple[Proven, ...] = ()
    together: bool = False

    @property
    def state_space(self) -> StateSpace | None:
        """The filter of a state-space bundle."""
        return self.table if isinstance(self.table, StateSpace) else None

    @property
    def neighbours(self) -> Neighbours | None:
        """The lists of a recommender's bundle."""
        return self.table if isinstance(self.table, Neighbours) else None

    @property
    def hybrid(self) -> Hybrid | None:
        """The tables of a hybrid recommender's bundle."""
        return self.table if isinstance(self.table, Hybrid) else None

    @property
    def ranker(self) -> Ranker | None:
        """What ranks items, of whatever kind."""
        return self.neighbours or self.hybrid

    @property
    def trees(self) -> Trees | None:
        """The trees of a classifier's or a regression's bundle."""
        return self.table if isinstance(self.table, Trees) else None

    @property
    def monitor(self) -> Monitor | None:
        """The control charts of a machine monitor's bundle."""
        return self.table if isinstance(self.table, Monitor) else None

    @property
    def reader(self) -> Reader | None:
        """What reads notes."""
        return self.table if isinstance(self.table, Reader) else None

    @property
    def ref(self) -> ModelRef:
        """How answers name this model."""
        return ModelRef(self.passport.slot, self.passport.algorithm, self.passport.version, self.digest)

    @property
    def ridge(self) -> Ridge | None:
        """The weights of a closed-form forecaster."""
        return self.table if isinstance(self.table, Ridge) else None

    def quantiles(self, x: NDArray[np.float32], who: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """[N, length, channels] -> [N, horizon, quantiles], scaled; `who` [N, 2] for graphs that ask for it (None: all
        unknown). One row a call: dynamic int8 has one activation scale per call, so a batch would change each answer by its
        neighbours."""
        return self.asked(x, who, 1)

    def quantiles_of_many(self, x: NDArray[np.float32], who: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """The same for rows of many machines, several a call where neighbours leave an answer within its golden tolerance
        (`together`)."""
        return self.asked(x, who, ROWS_A_CALL if self.together else 1)

    def asked(self, x: NDArray[np.float32], who: NDArray[np.int64] | None, rows_a_call: int) -> NDArray[np.float32]:
        """Quantiles by calls of so many rows, whatever that does to them."""
        graph = self.session
        if graph is None:
            raise BadBundle(Reason.UNSUPPORTED_RUNTIME, f"{self.passport.slot} has no graph to be asked for quantiles")
        started = time.perf_counter()
        given: dict[str, NDArray[Any]] = {"x": x}
        if "who" in graph.inputs:
            given["who"] = np.zeros((len(x), 2), dtype=np.int64) if who is None else who
        said = graph.outputs[0]
        rows = [
            graph.run({name: part[i : i + rows_a_call] for name, part in given.items()})[said]
            for i in range(0, len(x), rows_a_call)
        ]
        if rows:
            self.latency_us = (time.perf_counter() - started) * 1e6 / len(x)
        return np.concatenate(rows) if rows else np.zeros((0, 0, 0), dtype=np.float32)


def load(archive: bytes, expected_digest: str, runtime: RuntimeSettings = ONE_THREAD) -> LoadedModel:
    """Unpacks and proves a bundle; raises BadBundle (digest_mismatch, bad_archive, unsupported_runtime,
    golden_mismatch) with the fact. A TFLite file is tried in a process of its own, and comes into this one only if it is
    chosen."""
    bundle = unpack(archive, expected_digest)
    held = forms(bundle, runtime)
    if not held:
        return _proven(bundle, expected_digest, runtime, None)
    timed = runtime.engines == FASTEST and len(held) > 1
    spent: dict[EngineName, float] = {}
    refused: dict[EngineName, BadBundle] = {}
    here: dict[EngineName, LoadedModel] = {}
    for engine in held:
        if spent and runtime.engines != FASTEST:
            break
        try:
            if engine == TFLITE:
                spent[engine] = proven_apart(archive, expected_digest, runtime)
            else:
                here[engine] = _proven(bundle, expected_digest, runtime, engine)
                spent[engine] = _golden_us(here[engine], bundle) if timed else 0.0
        except BadBundle as error:
            refused[engine] = error
    while True:
        chosen = choose(spent, refused, runtime)
        try:
            model = here.get(chosen.engine) or _proven(bundle, expected_digest, runtime, chosen.engine)
        except BadBundle as error:  # right in its own process and not in this one: memory, for one
            refused[chosen.engine] = error
            del spent[chosen.engine]
            continue
        model.engine_why = chosen.why
        return model


def tried_lite(archive: bytes, expected_digest: str, runtime: RuntimeSettings) -> float:
    """Proves a bundle's TFLite file in this process, which it may end: `apart.py` has one of its own for it. Microseconds for
    all golden inputs; raises BadBundle as `load` does."""
    bundle = unpack(archive, expected_digest)
    return _golden_us(_proven(bundle, expected_digest, runtime, TFLITE), bundle)


def _golden_us(model: LoadedModel, bundle: Bundle) -> float:
    return least_us(partial(answer_golden, model, bundle.golden_inputs, bundle.golden_outputs))


def _proven(bundle: Bundle, digest: str, runtime: RuntimeSettings, engine: EngineName | None) -> LoadedModel:
    """One form of a bundle, assembled and proven."""
    passport = bundle.passport
    model = LoadedModel(passport, digest, texts=bundle.texts)
    try:
        for name, body in bundle.texts.items():
            if name.startswith(TEXT_OF_FRAMES):
                read_frames(body)
        if passport.life is not None:
            passport.life.check()
        if passport.runtime is Runtime.ONNX:
            model.session = _graph(bundle, runtime, engine)
            model.engine = model.session.name
        elif passport.runtime is Runtime.DECODER:
            model.tokenizer = _tokenizer(bundle)
            model.decoder = _decoder(bundle, model.tokenizer, runtime)
            model.engine = ONNXRUNTIME
        else:
            model.table, model.engine = _table_model(passport, bundle, runtime, engine)
            model.text = TextVectors(bundle.tables) if "text_idf" in bundle.tables else None
        tolerance = _tolerance(passport, engine)
        model.proof = _prove(model, bundle, tolerance)
        model.together = model.session is not None and _right_together(model, bundle, tolerance)
    except BadBundle:
        raise
    except UNFIT as error:
        raise BadBundle(
            Reason.BAD_ARCHIVE, f"{passport.slot} v{passport.version} does not run here: {error}"
        ) from error
    return model


UNFIT = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, MemoryError, Refused)
"""What the parts of a model raise where a bundle's tables, texts and passport do not fit one another."""


def _graph(bundle: Bundle, runtime: RuntimeSettings, engine: EngineName | None, context: int = 0) -> Engine:
    """A bundle's graph on the engine. context: most tokens of a text, where it is an encoder's."""
    if engine == TFLITE:
        if bundle.passport.lite is None:
            raise BadBundle(Reason.BAD_ARCHIVE, "the passport says nothing of the bundle's TFLite file")
        return LiteEngine(bundle.lite, bundle.passport.lite, runtime.threads)
    asked = runtime.text_lengths if context else ()
    return OnnxEngine(bundle.graph, runtime, [*(n for n in asked if n < context), context] if asked else ())


def _table_model(
    passport: Passport, bundle: Bundle, runtime: RuntimeSettings, engine: EngineName | None
) -> tuple[TableModel, str]:
    """(what the tables are, name of the engine of the graph beside them)."""
    if passport.runtime is not Runtime.READER:
        return _tables_alone(passport, bundle.tables), ""
    spec = passport.reader
    if spec is None:
        raise BadBundle(Reason.BAD_ARCHIVE, "the passport does not say what the reader answers")
    if not spec.width:
        return reader_of(spec, bundle.tables, bundle.texts), ""
    graph = _graph(bundle, runtime, engine, spec.context)
    encoder = GraphEncoder(graph, _tokenizer(bundle), spec.width, spec.context)
    return reader_of(spec, bundle.tables, bundle.texts, encoder), graph.name


def _tables_alone(passport: Passport, tables: Tables) -> TableModel:
    if passport.runtime is Runtime.STATE_SPACE:
        filter_ = StateSpace(tables)
        if len(filter_) != len(passport.series) or len(passport.series_until_ms) != len(passport.series):
            raise BadBundle(Reason.BAD_ARCHIVE, "series and tables differ in number")
        return filter_
    if passport.runtime is Runtime.NEIGHBOURS:
        return Neighbours(passport.items, tables)
    if passport.runtime is Runtime.HYBRID:
        hybrid = Hybrid(passport.items, passport.users, tables)
        if passport.recommend is None or passport.recommend.lengths != hybrid.mix.lengths.tolist():
            raise BadBundle(Reason.BAD_ARCHIVE, "the passport's profile lengths and the tables' differ")
        return hybrid
    if passport.runtime is Runtime.RIDGE:
        ridge = Ridge(tables)
        if len(ridge.width) != len(passport.series) + 1:
            raise BadBundle(Reason.BAD_ARCHIVE, "series and tables differ in number")
        return ridge
    if passport.runtime is Runtime.TREES:
        trees = Trees(tables)
        if len(passport.features) != trees.features:
            raise BadBundle(Reason.BAD_ARCHIVE, "the passport's features and the trees' differ in number")
        return trees
    if passport.runtime is Runtime.MONITOR:
        monitor = Monitor(tables)
        if len(monitor) != len(passport.series):
            raise BadBundle(Reason.BAD_ARCHIVE, "series and tables differ in number")
        return monitor
    raise BadBundle(
        Reason.UNSUPPORTED_RUNTIME, f"this agent has no runtime {passport.runtime.value!r}: update the agent"
    )


def _tokenizer(bundle: Bundle) -> Tokenizer:
    if TOKENIZER not in bundle.texts:
        raise BadBundle(
            Reason.BAD_ARCHIVE, f"the bundle has no {TOKENIZER}: pack the tokenizer that the model learned with"
        )
    return tokenizer(bundle.texts[TOKENIZER])


def _decoder(bundle: Bundle, words: Tokenizer, runtime: RuntimeSettings) -> OnnxDecoder:
    spec = bundle.passport.writer
    if spec is None:
        raise BadBundle(Reason.BAD_ARCHIVE, "the passport of a language model says nothing of its graph (writer)")
    if words.vocabulary > spec.vocabulary or spec.end >= spec.vocabulary:
        raise BadBundle(
            Reason.BAD_ARCHIVE,
            f"the tokenizer knows {words.vocabulary} tokens and the section ends with {spec.end}; the model has "
            f"{spec.vocabulary}: they were not made for one another",
        )
    return OnnxDecoder(graph_session(bundle.graph, runtime), spec)


def answer_golden(model: LoadedModel, inputs: Tables, outputs: Tables) -> dict[str, NDArray[Any]]:
    """What this machine answers to a bundle's golden inputs; `outputs` tells how many steps and ranks are wanted."""
    if model.decoder is not None:
        rows = []
        for ids in np.asarray(inputs["ids"], dtype=np.int64):
            model.decoder.rewind(0)
            rows.append(model.decoder.feed(ids.tolist())[-1])
        model.decoder.rewind(0)
        answers: dict[str, NDArray[Any]] = {"logits": np.stack(rows)}
        if "texts" in inputs and model.tokenizer is not None:
            answers["tokens"] = golden_tokens(model.tokenizer, read_golden_texts(inputs["texts"]))
        return answers
    if model.session is not None:
        return {"q": model.quantiles(*_golden_rows(inputs))}
    if model.table is not None:
        return model.table.golden(inputs, outputs)
    raise BadBundle(Reason.UNSUPPORTED_RUNTIME, "the bundle holds neither graph nor tables")


def _tolerance(passport: Passport, engine: EngineName | None) -> Golden:
    lite = passport.lite if engine == TFLITE else None
    return (lite.golden if lite is not None else None) or passport.golden


def _prove(model: LoadedModel, bundle: Bundle, tolerance: Golden) -> tuple[Proven, ...]:
    """What came out of each golden output. Raises BadBundle (golden_mismatch) where one is not right here."""
    if not bundle.golden_outputs:
        raise BadBundle(Reason.GOLDEN_MISMATCH, "the bundle has no golden vectors; it cannot be proven on this machine")
    answers = answer_golden(model, bundle.golden_inputs, bundle.golden_outputs)
    return tuple(
        proven(name, answers.get(name), expected, tolerance) for name, expected in bundle.golden_outputs.items()
    )


def _right_together(model: LoadedModel, bundle: Bundle, tolerance: Golden) -> bool:
    x, who = _golden_rows(bundle.golden_inputs)
    some = slice(ROWS_A_CALL // 2)
    return right_among_neighbours(
        lambda rows, names: model.asked(rows, names, len(rows)),
        x[some],
        None if who is None else who[some],
        bundle.golden_outputs["q"][some],
        tolerance,
    )


def _golden_rows(inputs: Tables) -> tuple[NDArray[np.float32], NDArray[np.int64] | None]:
    who = np.asarray(inputs["who"], dtype=np.int64) if "who" in inputs else None
    return np.asarray(inputs["x"], dtype=np.float32), who

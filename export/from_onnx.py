"""A float ONNX file that somebody brings: every size, name and operator is looked at before it is asked anything. Nothing in
it is run but operators of ONNX and of onnxruntime's own contributions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # it has no stubs
from numpy.typing import NDArray
from onnx import TensorProto
from onnx.external_data_helper import load_external_data_for_model, uses_external_data
from onnx.inliner import inline_local_functions

from export.parity import ENGINE_FAILED, first_line, one_thread
from protocol.bundles import MAX_BUNDLE_BYTES
from protocol.errors import BadBundle, BadSettings, Reason

LEAST_OPSET, MOST_OPSET = 13, 23
"""Below, no scale a channel can be written; above, no gateway of ours was tried."""
DOMAINS = ("", "ai.onnx", "com.microsoft")
_PACKED = {
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "QLinearMatMul",
    "QLinearConv", "DynamicQuantizeLSTM", "MatMulNBits", "GatherBlockQuantized",
}  # fmt: skip
_FLOATS = {"tensor(float)": np.float32}
_WHOLE = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(bool)": np.bool_}
Rows = dict[str, NDArray[np.generic]]
DRAWN = 32


def read_float_graph(path: Path) -> bytes:
    """The graph's bytes, its weights inside and its local functions in place. Raises BadBundle: too_large; bad_archive for a
    file that is truncated or none, or whose external data are missing; unsupported_runtime for an opset or an operator that
    is not known; wrong_type for weights that are not float32 any more; not_finite."""
    try:
        size = path.stat().st_size
        if size > MAX_BUNDLE_BYTES:
            raise BadBundle(Reason.TOO_LARGE, f"{path.name} of {size} bytes; the limit is {MAX_BUNDLE_BYTES}")
        model = onnx.load_from_string(path.read_bytes())
    except DecodeError as error:
        raise BadBundle(Reason.BAD_ARCHIVE, f"{path.name} is truncated, or no ONNX file: {error}") from error
    except OSError as error:
        raise BadSettings(f"cannot read {path}: {error.strerror}") from error
    if not model.graph.node or not model.graph.output:
        raise BadBundle(Reason.BAD_ARCHIVE, f"{path.name} is truncated, or no ONNX file: it holds no graph")
    _texts(model, path)
    _fetch_external(model, path)
    _known_operators(model)
    if model.functions:
        model = inline_local_functions(model)
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, UnicodeDecodeError) as error:
        raise BadBundle(Reason.BAD_ARCHIVE, f"{path.name} is no valid graph: {first_line(error)}") from error
    _float_weights(model)
    return bytes(model.SerializeToString())


def _texts(model: onnx.ModelProto, path: Path) -> None:
    """Names that are no UTF-8 come as bytes from the parser; nothing behind it expects that."""
    graph = model.graph
    names = [one.name for one in (*graph.initializer, *graph.input, *graph.output)]
    for node in _nodes(model):
        names += [node.name, node.op_type, node.domain, *node.input, *node.output, *(a.name for a in node.attribute)]
    if not all(isinstance(name, str) for name in names):
        raise BadBundle(Reason.BAD_ARCHIVE, f"{path.name} is no valid graph: a name is not UTF-8")


def _fetch_external(model: onnx.ModelProto, path: Path) -> None:
    """Weights that lie in files of their own, which must lie beside."""
    total = 0
    for one in model.graph.initializer:
        if not uses_external_data(one):
            continue
        said = {entry.key: entry.value for entry in one.external_data}
        name = said.get("location", "")
        if name != PurePosixPath(name).name or name in ("", "..") or "\\" in name:
            raise BadBundle(Reason.BAD_ARCHIVE, f"{one.name} lies in {name!r}: a plain name beside {path.name} is read")
        beside = path.parent / name
        if not beside.is_file():
            raise BadBundle(
                Reason.BAD_ARCHIVE, f"{path.name} keeps its weights in {name}, which is not beside it: bring both"
            )
        begins, length = (int(said.get(key) or 0) for key in ("offset", "length"))
        total += length or beside.stat().st_size - begins
        if not 0 <= begins <= begins + length <= beside.stat().st_size:
            raise BadBundle(Reason.BAD_ARCHIVE, f"{name} is truncated: {one.name} reaches beyond its end")
    if total > MAX_BUNDLE_BYTES:
        raise BadBundle(Reason.TOO_LARGE, f"external data of {total} bytes; the limit is {MAX_BUNDLE_BYTES}")
    if total:
        load_external_data_for_model(model, str(path.parent))


def _known_operators(model: onnx.ModelProto) -> None:
    own = {function.domain for function in model.functions}
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx") and not LEAST_OPSET <= opset.version <= MOST_OPSET:
            raise BadBundle(
                Reason.UNSUPPORTED_RUNTIME,
                f"opset {opset.version}; {LEAST_OPSET} to {MOST_OPSET} are known: export it again with one of them",
            )
    for node in _nodes(model):
        if node.domain not in (*DOMAINS, *own):
            raise BadBundle(
                Reason.UNSUPPORTED_RUNTIME,
                f"operator {node.op_type} of the domain {node.domain!r}, which no gateway has: export it with ONNX's own",
            )
        if node.op_type in _PACKED:
            raise BadBundle(Reason.WRONG_TYPE, f"{node.op_type}: it is quantized already; bring the float graph")


def _nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """All nodes, of branches and functions, too."""
    waiting = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    while waiting:
        node = waiting.pop()
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                waiting += graph.node


def _float_weights(model: onnx.ModelProto) -> None:
    other = {TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}
    large = [one for one in model.graph.initializer if len(one.dims) > 1]
    for one in large:
        if one.data_type in other:
            name = TensorProto.DataType.Name(one.data_type).lower()
            raise BadBundle(Reason.WRONG_TYPE, f"{one.name} is {name}: bring the graph with float32 weights")
        if one.data_type == TensorProto.FLOAT and not np.isfinite(_numbers(one)).all():
            raise BadBundle(Reason.NOT_FINITE, f"{one.name} holds what is no finite number: train the model again")
    if not any(one.data_type == TensorProto.FLOAT for one in large):
        raise BadBundle(Reason.WRONG_TYPE, "it holds no float matrix: there is nothing to make smaller")


def _numbers(one: onnx.TensorProto) -> NDArray[np.generic]:
    try:
        return np.asarray(onnx.numpy_helper.to_array(one))
    except ValueError as error:
        raise BadBundle(Reason.BAD_ARCHIVE, f"{one.name} holds more or less than its shape says: {error}") from error


@dataclass(frozen=True)
class Asked:
    """An input: shape of one row (without its first axis), None where an axis is free."""

    name: str
    dtype: type[np.generic]
    shape: tuple[int | None, ...]


class AnyGraph:
    """A graph of any inputs, row by row: rows [N, ...] of each, in order, to its float outputs side by side [N, K]. Raises
    BadBundle if it cannot be loaded or does not answer, BadSettings for inputs or outputs that it cannot be asked by."""

    def __init__(self, graph: bytes) -> None:
        self._session = one_thread(graph)
        self.inputs = [self._asked(one) for one in self._session.get_inputs()]
        self.outputs = [one.name for one in self._session.get_outputs() if one.type in _FLOATS]
        if not self.inputs or not self.outputs:
            raise BadSettings("the graph needs an input and a float output: there is nothing to compare otherwise")

    @staticmethod
    def _asked(one: object) -> Asked:
        name, kind, shape = (getattr(one, part) for part in ("name", "type", "shape"))
        dtype = (_FLOATS | _WHOLE).get(kind)
        if dtype is None:
            raise BadSettings(f"input {name} is {kind}: float, int64, int32 and bool are known")
        if not shape or (isinstance(shape[0], int) and shape[0] != 1):
            raise BadSettings(
                f"input {name} has the shape {shape}: export it with a free first axis (dynamic_shapes), or one of 1"
            )
        return Asked(name, dtype, tuple(size if isinstance(size, int) else None for size in shape[1:]))

    def __call__(self, *rows: NDArray[np.generic]) -> NDArray[np.floating]:
        found = []
        for at in range(len(rows[0])):
            given = {one.name: values[at : at + 1] for one, values in zip(self.inputs, rows, strict=True)}
            try:
                said = self._session.run(self.outputs, given)
            except ENGINE_FAILED as error:
                raise BadBundle(
                    Reason.UNSUPPORTED_RUNTIME, f"the graph does not answer row {at}: {first_line(error)}"
                ) from error
            found.append(np.concatenate([np.asarray(part, dtype=np.float32).reshape(-1) for part in said]))
        if len({len(row) for row in found}) > 1:
            raise BadSettings("the graph's answers to rows differ in size: give rows of one size")
        return np.stack(found)

    def drawn(self) -> Rows:
        """Rows from a normal distribution, where nothing better is at hand. Raises BadSettings where that makes no sense."""
        chance, made = np.random.default_rng(0), Rows()
        for one in self.inputs:
            shape = [size for size in one.shape if size is not None]
            if one.dtype is not np.float32 or len(shape) < len(one.shape):
                raise BadSettings(f"input {one.name} cannot be made up: give rows of every input (--rows FILE.npz)")
            made[one.name] = chance.standard_normal((DRAWN, *shape), dtype=np.float32)
        return made

    def checked(self, rows: Rows) -> Rows:
        """Rows that somebody brings, in the order and types of the inputs. Raises BadSettings where they do not fit."""
        counts = {len(values) if values.ndim else 0 for values in rows.values()}
        if set(rows) != {one.name for one in self.inputs} or len(counts) != 1 or min(counts, default=0) < 2:
            names = ", ".join(one.name for one in self.inputs)
            raise BadSettings(
                f"--rows holds {', '.join(rows) or 'nothing'}: two rows or more of each of {names} are asked for"
            )
        for one in self.inputs:
            shape = rows[one.name].shape[1:]
            if len(shape) != len(one.shape) or any(b not in (None, a) for a, b in zip(shape, one.shape, strict=True)):
                raise BadSettings(f"--rows: {one.name} has rows of {shape}; the graph wants {one.shape}")
            if rows[one.name].dtype.kind not in "fiub" or not np.isfinite(rows[one.name].astype(np.float64)).all():
                raise BadSettings(f"--rows: {one.name} holds what is no finite number")
        return {one.name: rows[one.name].astype(one.dtype) for one in self.inputs}


def opset_of(graph: bytes) -> int:
    """Version of ONNX's own operators in a graph."""
    model = onnx.load_from_string(graph)
    return max((int(one.version) for one in model.opset_import if one.domain in ("", "ai.onnx")), default=0)

"""A float graph becomes an int8 one: weights per channel, activations scaled at run time, so that a window
far outside of the training data (a fault) is not clipped as fixed ranges would. For language models there are blocks of
weights, too."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process

from protocol.errors import BadBundle, Reason

BLOCKS = "MatMulNBits"
RECURRENT = {"LSTM": "DynamicQuantizeLSTM"}
"""Operators that must not stay float, and what they become."""


def quantize(graph: bytes) -> bytes:
    """The int8 graph's bytes. Raises BadBundle if a recurrent layer stayed float, which happens without an
    error when its weights reach it through another operator."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source, prepared, packed = (Path(folder) / name for name in ("float.onnx", "prepared.onnx", "int8.onnx"))
        source.write_bytes(graph)
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_dynamic(str(prepared), str(packed), weight_type=QuantType.QInt8, per_channel=True)
        small = packed.read_bytes()
    had, has = operators(graph), operators(small)
    for name, becomes in RECURRENT.items():
        if name in had and (name in has or becomes not in has):
            raise BadBundle(
                Reason.UNSUPPORTED_RUNTIME,
                f"{name} was not quantized: expected {becomes}; check onnxruntime's version",
            )
    return small


def weight_only(graph: bytes, bits: int, block: int = 32) -> bytes:
    """The graph with its matrices in blocks of `block` weights of 4 or 8 bits, each with a scale of its own; what flows
    through it stays float, so that no row depends on another. Embeddings stay float: they are read, not multiplied.
    Raises BadBundle if no matrix was found."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source, prepared = Path(folder) / "float.onnx", Path(folder) / "prepared.onnx"
        source.write_bytes(graph)
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        packer = MatMulNBitsQuantizer(
            onnx.load(str(prepared)), bits=bits, block_size=block, is_symmetric=True, accuracy_level=4
        )
        packer.process()
        small = bytes(packer.model.model.SerializeToString())
    if BLOCKS not in operators(small):
        raise BadBundle(Reason.UNSUPPORTED_RUNTIME, f"no matrix became {BLOCKS}; check onnxruntime's version")
    return small


def operators(graph: bytes) -> set[str]:
    """Names of the operators in a graph."""
    return {str(node.op_type) for node in onnx.load_from_string(graph).graph.node}

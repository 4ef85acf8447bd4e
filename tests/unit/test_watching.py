"""Dashboard and alert rules name metrics and labels that ragq has; `make alerts-test` runs them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client import REGISTRY, Counter, Gauge, Histogram

from ragq import metrics

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
OF_PROMETHEUS = {"up": {"job", "instance"}}
OF_SCRAPES = {"job", "instance", "le"}
SUFFIXES = {Counter: ("_total",), Histogram: ("_bucket", "_sum", "_count"), Gauge: ("",)}
NAME = re.compile(r"\b(?:ragq|process|python)_\w+|\bup\b")


def exposed() -> dict[str, set[str]]:
    """The labels of each metric."""
    ours = [one for one in vars(metrics).values() if isinstance(one, Counter | Gauge | Histogram)]
    found = {one._name + suffix: {*one._labelnames} for one in ours for suffix in SUFFIXES[type(one)]}
    process = {sample.name: set[str]() for family in REGISTRY.collect() for sample in family.samples}
    return process | found | OF_PROMETHEUS


def queries() -> Iterator[tuple[str, str]]:
    """Each query, and the text that is shown with its labels."""
    board = json.loads((DEPLOY / "grafana" / "ragq.json").read_text())
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"], target["legendFormat"]
    for group in yaml.safe_load((DEPLOY / "prometheus" / "ragq.rules.yml").read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["expr"], rule["annotations"]["summary"]


@pytest.mark.parametrize(("query", "shown"), list(queries()))
def test_a_query_names_metrics_and_labels_that_are_there(query: str, shown: str) -> None:
    known = exposed()
    named = NAME.findall(query)
    assert named
    assert set(named) <= known.keys()
    labels = OF_SCRAPES.union(*(known[name] for name in named))
    used = set(re.findall(r"(\w+)(?:=~|!=|=)\"", query))
    used.update(label.strip() for by in re.findall(r"by \(([^)]*)\)", query) for label in by.split(","))
    used.update(re.findall(r"{{ ?(?:\$labels\.)?(\w+) ?}}", shown))
    assert used <= labels


def test_the_page_explains_each_alert() -> None:
    page = (ROOT / "docs" / "how-to" / "watch.md").read_text()
    rules = (DEPLOY / "prometheus" / "ragq.rules.yml").read_text()
    assert set(re.findall(r"alert: (\w+)", rules)) == set(re.findall(r"`(Ragq\w+)`", page))

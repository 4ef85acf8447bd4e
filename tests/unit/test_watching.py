"""Dashboard and alert rules name metrics and labels that ragq has; `make alerts-test` runs them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client import REGISTRY, Counter, Gauge, Histogram

from ragq import metrics
from ragq.models import JobFunction, QueueName

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


@pytest.fixture(scope="module")
def series() -> set[str]:
    """The counters that a process shows as 0 when it starts."""
    shows = "import prometheus_client, ragq.metrics; print(prometheus_client.generate_latest().decode())"
    begun = subprocess.run([sys.executable, "-c", shows], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"^(ragq_\w+_total(?:{.*})?) 0\.0$", begun, re.MULTILINE))


def test_a_counter_whose_growth_in_a_long_time_is_shown_begins_at_0(series: set[str]) -> None:
    """Its first event would not count otherwise, which matters where events are rare."""
    grown = {name for query, _ in queries() for name in re.findall(r"increase\((ragq_\w+_total)[^\[]*\[\d", query)}
    assert {f'ragq_feedback_total{{rating="{rating}"}}' for rating in ("up", "down")} <= series
    assert grown <= {one.partition("{")[0] for one in series}


def test_a_counter_that_an_alert_watches_begins_at_0(series: set[str]) -> None:
    """Its first event would not count otherwise: Prometheus sees no growth in a series that begins with it."""
    rules = (DEPLOY / "prometheus" / "ragq.rules.yml").read_text()
    watched = set(re.findall(r"ragq_\w+_total", rules))
    assert watched <= {one.partition("{")[0] for one in series}
    outcomes = [text.split("|") for text in re.findall(r'outcome=~"(.*?)"', rules)]
    assert outcomes
    wanted = {f'ragq_webhook_attempts_total{{outcome="{one}"}}' for some in outcomes for one in some}
    wanted |= {f'ragq_refused_total{{queue="{queue}"}}' for queue in QueueName}
    ended = (function.rpartition(".")[2] for function in JobFunction)
    wanted |= {f'ragq_jobs_ended_total{{code="finished",function="{function}"}}' for function in ended}
    assert wanted <= series

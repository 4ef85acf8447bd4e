"""What traces cost: answers a second and CPU of an answer without and with them, of two `ragq up` in turns.

Both hold the pages of `docs/explanation` and ask a fake LLM; one sends its spans to a collector in this process, which reads them at the end. With
`--before`, an earlier version is measured in the same turns.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks.answers import DOCUMENTS, fill, measure_burst, service, write_questions
from benchmarks.harness import Report, arguments, pss_mb
from tests.collector import running_collector
from tests.servers import FakeLlm, Ragq

LETTERS = "abcdeghijklmnopqrstuvwxyz"
OFF, ON, BEFORE = "off", "on", "before"
LLM_SECONDS = 0.2
CPU, RATE = "cpu_ms_an_answer_all", "answers_per_second"
MEASURES = {CPU: "needs more CPU", RATE: "is slower"}
Rounds = dict[str, list[float]]  # by service


def measure(services: dict[str, Ragq], count: int, rounds: int) -> dict[str, Rounds]:
    """CPU ms of an answer, of all processes, and answers a second, in each round by service; each round is in the other order than the one before."""
    found: dict[str, Rounds] = {measure: {name: [] for name in services} for measure in MEASURES}
    for number in range(rounds):
        questions = write_questions(count, LETTERS[number])
        for name in list(services)[:: 1 if number % 2 else -1]:
            burst = measure_burst(services[name], questions)
            for measure in MEASURES:
                found[measure][name].append(burst[measure])
    return found


def compare(report: Report, found: dict[str, Rounds], base: str, other: str, most_percent: float) -> None:
    """Note how much one service is slower than another and needs more CPU, by the median of the rounds, and whether that is allowed."""
    for measure, words in MEASURES.items():
        pairs = zip(found[measure][base], found[measure][other], strict=True)
        shares = [first / second if measure == RATE else second / first for first, second in pairs]
        percent = round(100 * (statistics.median(shares) - 1), 1)
        report.figures[f"{other}_against_{base}_percent_{measure}"] = percent
        report.checks[f"{other} {words} than {base} by at most {most_percent:g} %: {percent} %"] = (
            percent <= most_percent
        )


def run(report: Report, given: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="ragq-traces-") as name, report.watching(), ExitStack() as stack:
        folder = Path(name)
        llm = stack.enter_context(FakeLlm(folder, latency=LLM_SECONDS))
        collector = stack.enter_context(running_collector(reads=False))
        variables = {OFF: {}, ON: {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}}
        if given.before:
            variables = {BEFORE: {"PYTHONPATH": str(given.before.resolve())}, **variables}
        services = {name: stack.enter_context(service(folder / name, llm, **more)) for name, more in variables.items()}
        for one in services.values():
            fill(one, DOCUMENTS / "explanation")
        report.figures["pss_mb"] = {name: round(pss_mb(one.pid), 1) for name, one in services.items()}
        collector.bodies.clear()
        found = measure(services, given.questions, given.rounds)
        report.figures["medians"] = {
            measure: {name: statistics.median(of) for name, of in rounds.items()} for measure, rounds in found.items()
        }
        report.figures["rounds"] = found
        collector.read_all()
        report.figures["spans_an_answer"] = round(len(collector.spans) / given.rounds / given.questions, 1)
        compare(report, found, OFF, ON, 5)
        if given.before:
            compare(report, found, BEFORE, OFF, 1)


def main() -> None:
    """Run it, and write the figures."""
    parser = arguments("traces", __doc__)
    parser.add_argument("--questions", type=int, default=300, help="Of each round.")
    parser.add_argument("--rounds", type=int, default=9, choices=range(1, len(LETTERS)), help="The median counts.")
    parser.add_argument("--before", type=Path, help="The folder src of an earlier version, to compare with as well.")
    given = parser.parse_args()
    report = Report("traces")
    run(report, given)
    sys.exit(report.publish(given.out))


if __name__ == "__main__":
    main()

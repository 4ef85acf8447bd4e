"""A drill of the alerts: Prometheus scrapes a running system, and each alert fires when its fault is made and ends with it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.programs import find_program
from tests.servers import FakeLlm, Ragq, free_port, stop, wait_until

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "ragq.rules.yml"
FAILING = "[[fake status=500]] What fails?"
DISK_BYTES = 8 << 20
INSTALL = "as root, apt-get install --no-install-recommends prometheus"


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [find_program(["promtool"], install=INSTALL), *arguments], capture_output=True, text=True, check=False
    )


def test_the_configuration_and_the_rules_are_sound() -> None:
    """Each rule fires in its tests, and none in those of a healthy system."""
    for arguments in (("check", "config", "prometheus.yml"), ("test", "rules", "ragq.rules.test.yml")):
        done = promtool(*arguments[:2], str(DEPLOY / "prometheus" / arguments[2]))
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeLlm]:
    with FakeLlm(tmp_path_factory.mktemp("llm")) as fake:
        yield fake


@pytest.fixture(scope="module")
def ragq(llm: FakeLlm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ragq]:
    service = Ragq(
        tmp_path_factory.mktemp("ragq") / "data",
        RAGQ_LLM_BASE_URL=llm.base_url,
        RAGQ_LLM_MODEL="fake/model",
        RAGQ_LLM_TRIES=1,
        RAGQ_LLM_BREAKER_CALLS=2,
        RAGQ_LLM_BREAKER_PROBE_SECONDS=1,
    ).start()
    yield service
    service.stop()


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of 8 MB."""
    folder = tmp_path_factory.mktemp("disk")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", folder], check=False)
    if mounted.returncode != 0:
        give_up = pytest.fail if os.environ.get("CI") else pytest.skip
        give_up("A small file system cannot be mounted: run this as root.")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture(scope="module")
def other_api(ragq: Ragq, small_disk: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Another API process, with its data folder on the small disk."""
    services = {f"RAGQ_{name.upper()}": url for name, url in ragq.services.items()}
    process, url = ragq.spawn_api(RAGQ_DATA_DIR=small_disk, **services)
    yield process, url
    stop(process)


@pytest.fixture(scope="module")
def prometheus(
    ragq: Ragq, other_api: tuple[subprocess.Popen[bytes], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The URL of a Prometheus with our configuration and rules, but without their patience."""
    program, folder, port = (
        find_program(["prometheus"], install=INSTALL),
        tmp_path_factory.mktemp("prometheus"),
        free_port(),
    )
    api, other = (url.removeprefix("http://") for url in (ragq.url, other_api[1]))
    config = (DEPLOY / "prometheus" / "prometheus.yml").read_text()
    config = config.replace('["127.0.0.1:8000"]', f'["{api}", "{other}"]').replace("127.0.0.1:8000", api)
    (folder / "prometheus.yml").write_text(config.replace("15s", "500ms"))
    (folder / RULES.name).write_text(re.sub(r"for: \w+", "for: 0s", RULES.read_text()))
    url = f"http://127.0.0.1:{port}"
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [program, "--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address={url[7:]}"],
            cwd=folder,
            stdout=log,
            stderr=log,
        )
    try:
        wait_until(lambda: is_ready(url), what=(folder / "log").read_text())
        wait_until(lambda: query(url, 'up{job="ragq-workers"} == 1'), what="the workers' metrics")
        yield url
    finally:
        stop(process)


def is_ready(url: str) -> bool:
    with contextlib.suppress(httpx2.TransportError):
        return httpx2.get(f"{url}/-/ready").is_success
    return False


def query(url: str, expression: str) -> list[dict[str, Any]]:
    answer = httpx2.get(f"{url}/api/v1/query", params={"query": expression}).json()
    assert answer["status"] == "success", f"{expression}: {answer}"
    found: list[dict[str, Any]] = answer["data"]["result"]
    return found


def firing(url: str) -> set[str]:
    alerts = httpx2.get(f"{url}/api/v1/alerts").json()["data"]["alerts"]
    return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}


def wait_for(url: str, name: str, *, fires: bool = True, seconds: float = 40) -> None:
    wait_until(
        lambda: (name in firing(url)) is fires, seconds=seconds, what=f"{name} fires: {fires}; now {firing(url)}"
    )


def ask(ragq: Ragq, text: str, **options: Any) -> str:
    """Ask a question; returns the status of its response."""
    answer = httpx2.post(f"{ragq.url}/v1/responses", json={"input": text, "tools": [], **options}, timeout=60)
    status: str = answer.json()["status"]
    return status


def test_nothing_fires_in_a_healthy_system(ragq: Ragq, prometheus: str) -> None:
    assert ask(ragq, "What is well?") == "completed"
    wait_until(lambda: query(prometheus, 'ragq_jobs_ended_total{code="finished"} > 0'), what="the answer's metric")
    wait_until(lambda: len(query(prometheus, 'up{job="ragq"} == 1')) == 2, what="both APIs")
    assert firing(prometheus) == set()


def test_every_query_of_the_dashboard_is_understood(prometheus: str) -> None:
    board = json.loads((DEPLOY / "grafana" / "ragq.json").read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    assert len(queries) > 20
    filled = [bool(query(prometheus, one.replace("$__rate_interval", "1m"))) for one in queries]
    assert sum(filled) > 10, "there was an answer, so many have values"


def test_an_open_breaker_fires_until_the_llm_answers_again(ragq: Ragq, prometheus: str) -> None:
    assert {ask(ragq, FAILING) for _ in range(2)} == {"failed"}
    wait_for(prometheus, "RagqLlmBreakerOpen")
    wait_until(lambda: ask(ragq, "Are you well again?") == "completed", seconds=30, what="the probe")
    wait_for(prometheus, "RagqLlmBreakerOpen", fires=False)


@pytest.mark.timeout(240)
def test_frozen_workers_and_what_waits_for_them_fire_until_they_run_on(ragq: Ragq, prometheus: str) -> None:
    frozen = [pid for name, pid in ragq.pids.items() if "worker" in name]
    assert frozen
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        wait_for(prometheus, "RagqWorkersGone")
        assert ask(ragq, "Who is there?", background=True) == "queued"
        wait_for(prometheus, "RagqQueueOld", seconds=90)
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
    wait_for(prometheus, "RagqWorkersGone", fires=False)
    wait_for(prometheus, "RagqQueueOld", fires=False)


def test_a_full_disk_fires_until_there_is_room(small_disk: Path, prometheus: str) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(DISK_BYTES * 95 // 100))
    wait_for(prometheus, "RagqDiskLow")
    ballast.unlink()
    wait_for(prometheus, "RagqDiskLow", fires=False)
    assert "RagqApiDown" not in firing(prometheus)


def test_an_api_that_is_gone_fires(other_api: tuple[subprocess.Popen[bytes], str], prometheus: str) -> None:
    stop(other_api[0])
    wait_for(prometheus, "RagqApiDown")
    assert len(query(prometheus, 'up{job="ragq"} == 0')) == 1, "the other one is up"

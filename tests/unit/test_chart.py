"""The Helm chart: rendered by Helm, and held to Kubernetes' schemas, to the settings, the commands and the routes."""

from __future__ import annotations

import copy
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
import jsonschema
import kubernetes_validate
import pytest
import yaml
from fastapi.routing import APIRoute

from ragq import __version__
from ragq.cli import main
from ragq.models import QueueName
from ragq.queues.metrics_server import WorkerHealth, respond
from ragq.routes import health
from ragq.settings import Settings
from tests.programs import find_program

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy" / "helm"
CHART = DEPLOY / "ragq"
VALUES = sorted(path.stem for path in (DEPLOY / "values").glob("*.yaml"))
KUBERNETES = "1.31"
OWN_KINDS = ("ScaledObject", "TriggerAuthentication")  # of KEDA, which is no part of Kubernetes
SECRETS = ("VALKEY_PASSWORD", "POSTGRES_PASSWORD")
Manifest = dict[str, Any]


def find_helm() -> str:
    return find_program(["helm"], install="from https://helm.sh; on Linux with x86_64 `make setup` installs it")


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [find_helm(), "template", "test", str(CHART), *arguments], capture_output=True, check=False, text=True
    )


@cache
def render(values: str) -> tuple[Manifest, ...]:
    done = helm("--namespace", "answers", "--values", str(DEPLOY / "values" / f"{values}.yaml"))
    assert done.returncode == 0, done.stderr
    return tuple(one for one in yaml.safe_load_all(done.stdout) if one)


def find(values: str, kind: str) -> dict[str, Manifest]:
    return {one["metadata"]["name"].removeprefix("test-ragq-"): one for one in render(values) if one["kind"] == kind}


def containers(values: str) -> Iterator[tuple[Manifest, Manifest]]:
    """The pods and containers of ragq itself."""
    for one in render(values):
        pod = one["spec"].get("template", {}).get("spec", {}) if "spec" in one else {}
        for container in pod.get("containers", []):
            if container["image"].startswith("ragq:"):
                yield pod, container


@pytest.mark.parametrize("values", VALUES)
def test_every_manifest_passes_kubernetes_schemas(values: str) -> None:
    manifests = [one for one in render(values) if one["kind"] not in OWN_KINDS]
    assert len(manifests) >= 10
    for manifest in manifests:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def check_of_keda(manifest: Manifest) -> None:
    schemas = yaml.safe_load((ROOT / "tests" / "data" / "keda.yaml").read_text())
    jsonschema.validate(manifest, {"$ref": f"#/{manifest['kind']}"} | schemas)


def test_kedas_resources_have_the_fields_that_keda_knows_and_numbers_as_texts() -> None:
    manifests = [one for values in VALUES for one in render(values) if one["kind"] in OWN_KINDS]
    assert sorted(one["kind"] for one in manifests) == ["ScaledObject", "ScaledObject", "TriggerAuthentication"]
    for manifest in manifests:
        check_of_keda(manifest)
    for changed in ({"targetValue": 5}, {"valueLocator": "oldest_seconds.queries"}):
        manifest = copy.deepcopy(next(one for one in manifests if one["kind"] == "ScaledObject"))
        manifest["spec"]["triggers"][0]["metadata"] |= changed
        with pytest.raises(jsonschema.ValidationError):
            check_of_keda(manifest)


def test_there_are_three_sets_of_values_and_the_linter_has_no_warning() -> None:
    assert VALUES == ["bundled", "hpa", "managed"]
    for values in VALUES:
        linted = subprocess.run(
            [find_helm(), "lint", "--strict", str(CHART), "--values", str(DEPLOY / "values" / f"{values}.yaml")],
            capture_output=True,
            check=False,
            text=True,
        )
        assert linted.returncode == 0, linted.stdout


def test_the_versions_are_ragqs() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)


@pytest.mark.parametrize("values", VALUES)
def test_every_variable_is_a_setting_and_every_command_exists(values: str) -> None:
    assert isinstance(main, click.Group)
    names = {f"RAGQ_{field}".upper() for field in Settings.model_fields}
    commands = []
    for _, container in containers(values):
        variables = {one["name"] for one in container["env"]}
        assert variables - set(SECRETS) <= names
        program, command, *options = container["command"]
        main.commands[command].make_context(command, list(options)).close()
        commands.append((program, command, *options))
    assert sorted(commands) == [
        ("ragq", "migrate"),
        ("ragq", "serve", "--host", "0.0.0.0", "--port", "8000"),
        *sorted(("ragq", "worker", str(queue)) for queue in QueueName),
    ]


@pytest.mark.parametrize("values", VALUES)
def test_a_pod_has_longer_to_stop_than_its_grace_and_no_rights(values: str) -> None:
    grace: float = Settings.model_fields["shutdown_grace_seconds"].default
    for pod, container in containers(values):
        assert pod["terminationGracePeriodSeconds"] >= grace + 5 or container["command"][1] == "migrate"
        assert pod["securityContext"]["runAsNonRoot"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


@pytest.mark.parametrize(("seconds", "has"), [("120", 135), ("0", 15), ("47.5", 63)])
def test_a_worker_has_longer_to_stop_than_a_grace_that_is_set(seconds: str, has: int) -> None:
    set_it = f"settings.RAGQ_SHUTDOWN_GRACE_SECONDS={seconds}"
    for option in ("--set", "--set-string"):
        done = helm("--set", "secret.existing=there", option, set_it)
        assert done.returncode == 0, done.stderr
        pods = [
            one["spec"]["template"] for one in yaml.safe_load_all(done.stdout) if one and one["kind"] == "Deployment"
        ]
        grace = {
            pod["metadata"]["labels"]["app.kubernetes.io/component"]: pod["spec"]["terminationGracePeriodSeconds"]
            for pod in pods
        }
        assert grace == {"api": 45, "query-worker": has, "document-worker": has}


def test_the_default_grace_is_the_settings() -> None:
    grace: float = Settings.model_fields["shutdown_grace_seconds"].default
    for _, container in containers("managed"):
        assert "RAGQ_SHUTDOWN_GRACE_SECONDS" not in {one["name"] for one in container["env"]}
    for name in ("query-worker", "document-worker"):
        pod = find("managed", "Deployment")[name]["spec"]["template"]["spec"]
        assert pod["terminationGracePeriodSeconds"] == grace + 15


def test_probes_ask_what_the_processes_serve() -> None:
    paths = {route.path for route in health.router.routes if isinstance(route, APIRoute)}
    for _, container in containers("managed"):
        if container["command"][1] == "migrate":
            continue
        (port,) = container["ports"]
        asked = [container[probe]["httpGet"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")]
        assert [one["path"] for one in asked] == ["/healthz", "/healthz", "/readyz"]
        assert {one["port"] for one in asked} == {port["name"]}
        assert {one["path"] for one in asked} <= paths
        for one in asked:  # a worker answers them, too, and not with its metrics
            assert respond(f"GET {one['path']} HTTP/1.1".encode(), WorkerHealth())[1] == "application/json"
        environment = {one["name"]: one.get("value") for one in container["env"]}
        listens = {"http": container["command"][-1], "metrics": environment["RAGQ_METRICS_PORT"]}
        assert str(port["containerPort"]) == listens[port["name"]]


def test_workers_are_scaled_by_the_age_of_their_oldest_job_or_by_cpu_or_not() -> None:
    scaled = find("managed", "ScaledObject")
    asked = {name: one["spec"]["triggers"][0]["metadata"] for name, one in scaled.items()}
    assert {name: one["valueLocation"] for name, one in asked.items()} == {
        "query-worker": "oldest_seconds.queries",
        "document-worker": "oldest_seconds.documents",
    }
    assert {one["url"] for one in asked.values()} == {"http://test-ragq.answers.svc/status"}
    for name, one in scaled.items():
        assert one["spec"]["scaleTargetRef"]["name"] == f"test-ragq-{name}"
        assert "replicas" not in find("managed", "Deployment")[name]["spec"]
    assert set(find("hpa", "HorizontalPodAutoscaler")) == {"api", "query-worker", "document-worker"}
    assert not find("bundled", "ScaledObject")
    assert find("bundled", "Deployment")["query-worker"]["spec"]["replicas"] == 1


def test_bundled_servers_take_only_ragqs_pods_and_keep_what_they_acknowledge() -> None:
    assert set(find("bundled", "StatefulSet")) == {"valkey", "postgresql"}
    assert not find("managed", "StatefulSet")
    for name in ("valkey", "postgresql"):
        (rule,) = find("bundled", "NetworkPolicy")[name]["spec"]["ingress"]
        assert rule["from"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/name"] == "ragq"
    (server,) = find("bundled", "StatefulSet")["valkey"]["spec"]["template"]["spec"]["containers"]
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    same = compose["valkey"]["command"]
    assert server["args"][:-1] == same[:-1]
    assert (
        server["image"],
        find("bundled", "StatefulSet")["postgresql"]["spec"]["template"]["spec"]["containers"][0]["image"],
    ) == (
        compose["valkey"]["image"],
        compose["database"]["image"],
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "RAGQ_API_KEY to 16 characters"),
        (["secret.values.RAGQ_API_KEY=0123456789abcdef"], "RAGQ_VALKEY_URL"),
        (["secret.values.RAGQ_API_KEY=0123456789abcdef", "valkey.bundled=true"], "VALKEY_PASSWORD"),
        (["secret.existing=there", "settings.LLM_MODEL=x"], "settings"),
        (["secret.existing=there", "scaling.by=magic"], "scaling.by"),
        (["secret.existing=there", "replicas=3"], "replicas"),
    ],
)
def test_wrong_values_are_refused_with_their_names(arguments: list[str], message: str) -> None:
    done = helm(*(part for one in arguments for part in ("--set", one)))
    assert done.returncode != 0
    assert message in done.stderr

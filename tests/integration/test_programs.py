"""Python, started anew: what modules load, and that every benchmark starts."""

from __future__ import annotations

import platform
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import environment, free_port, run, wait_until

ROOT = Path(__file__).parents[2]


HEAVY = {
    *("aiohttp", "fastapi", "mcp", "numpy", "obstore", "onnxruntime", "openai", "psycopg", "pypdfium2", "redis", "rq"),
    *("gcld3", "olefile", "semantic_text_splitter", "tokenizers"),
}


@pytest.mark.parametrize(
    ("module", "needed"),
    [
        ("ragq.up", set()),
        ("ragq.main", {"fastapi", "psycopg", "redis"}),
        ("ragq.queues.async_worker", {"psycopg", "redis", "rq"}),
        ("ragq.parsing.forker", {"gcld3", "olefile", "pypdfium2"}),
    ],
)
def test_an_idle_process_has_loaded_no_large_package_that_it_does_not_need(module: str, needed: set[str]) -> None:
    code = f"import sys, ragq.cli, {module}; sys.exit(' '.join(sys.modules.keys() & {HEAVY - needed}))"
    assert run(sys.executable, "-c", code, env=environment()).stderr == "\n"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no arenas")
def test_the_threads_of_a_child_of_up_share_one_heap() -> None:
    code = """
import ctypes, threading
from ragq.cli import main

def show_heaps() -> None:
    thread = threading.Thread(target=ctypes.create_string_buffer, args=[100_000])
    thread.start()
    thread.join()
    library = ctypes.CDLL(None)
    library.malloc_info(0, ctypes.c_void_p.in_dll(library, "stdout"))
    library.fflush(None)

main.commands["worker"].callback = lambda **_: show_heaps()
main(["worker", "--with-parent"])
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout
        assert child.stdout.read().count("<heap nr=") == 1


def test_importing_numpy_in_a_thread_leaves_the_environment_alone() -> None:
    code = """
import os, threading
from ragq.tasks import prepare_for_numpy
prepare_for_numpy()
changed = []
os.putenv = os.unsetenv = lambda *names: changed.append(names)
thread = threading.Thread(target=__import__, args=["ragq.client.minilm.model"])
thread.start()
thread.join()
assert not changed, changed
"""
    done = run(sys.executable, "-c", code, env=environment())
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("program", [["ragq.main"], ["ragq.cli", "serve"]])
def test_ctrl_c_ends_the_api_without_a_traceback(program: list[str], tmp_path: Path) -> None:
    nowhere = {"RAGQ_VALKEY_URL": f"unix://{tmp_path}/none", "RAGQ_DATABASE_URL": "postgresql://127.0.0.1:1/none"}
    log = tmp_path / "log"
    with log.open("wb") as file:
        api = subprocess.Popen(
            [sys.executable, "-m", *program], env=environment(RAGQ_PORT=free_port(), **nowhere), stderr=file
        )
    wait_until(lambda: b"Uvicorn running" in log.read_bytes(), seconds=30)
    api.send_signal(signal.SIGINT)
    assert api.wait(10) == 130
    assert b"Traceback" not in log.read_bytes()


def test_every_benchmark_starts_as_the_makefile_starts_it() -> None:
    recipes = (ROOT / "Makefile").read_text()
    assert "python benchmarks/" not in recipes, "its folder would be searched for modules first, and has a queue.py"
    modules = sorted(set(re.findall(r"python -m (benchmarks\.\w+)", recipes)))
    assert {"benchmarks.drill", "benchmarks.queue"} <= set(modules)
    code = """
import runpy, sys
for module in sys.argv[1:]:
    sys.argv = [module, "--help"]
    try:
        runpy.run_module(module, run_name="__main__")
    except SystemExit as end:
        assert not end.code, module
"""
    done = run(sys.executable, "-c", code, *modules, env=environment(), cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("usage: ") == len(modules)

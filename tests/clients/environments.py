"""Each client's environment under build/clients, made from its lock on first use and made again when the lock changes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PROGRAMS = HERE / "programs"
BUILD = ROOT / "build" / "clients"
INSTALL_SECONDS = 1200
TOOLS = ("bun", "numpy", "playwright", "zod")  # are no clients


class InstallError(Exception):
    """An environment could not be made; the message has the end of the installer's output."""


def client_names() -> list[str]:
    """The clients, by their folders."""
    locks = [*PROGRAMS.glob("*/requirements.lock"), *PROGRAMS.glob("*/package-lock.json")]
    return sorted({lock.parent.name for lock in locks})


def version_of(name: str) -> str:
    """The packages that a client's program asks for, with the versions of its lock."""
    folder = PROGRAMS / name
    if (lock := folder / "package-lock.json").exists():
        packages = json.loads(lock.read_text())["packages"]
        pinned = {package: packages[f"node_modules/{package}"]["version"] for package in packages[""]["dependencies"]}
    else:
        locked = dict(re.findall(r"^([\w.-]+)==([^ ;\n]+)", (folder / "requirements.lock").read_text(), re.MULTILINE))
        asked = re.findall(r"^[\w.-]+", (folder / "requirements.in").read_text(), re.MULTILINE)
        pinned = {package: locked[package] for package in asked}
    return ", ".join(f"{each} {version}" for each, version in pinned.items() if each not in TOOLS) or "a checkout"


def prepare(name: str) -> list[str]:
    """Make the client's environment unless it is there; returns the command that runs its program."""
    folder, source = BUILD / name, PROGRAMS / name
    lock = next(path for path in (source / "requirements.lock", source / "package-lock.json") if path.exists())
    digest, mark = hashlib.sha256(lock.read_bytes()).hexdigest(), folder / "lock.sha256"
    is_python = lock.suffix == ".lock"
    if not mark.exists() or mark.read_text() != digest:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (_install_python if is_python else _install_node)(folder, lock)
        mark.write_text(digest)
    if is_python:
        return [str(folder / "bin" / "python"), str(source / "program.py")]
    for file in (PROGRAMS / "support" / "checks.mjs", source / "program.mjs"):
        shutil.copy(file, folder)  # Node looks for packages beside the program
    return ["node", str(folder / "program.mjs")]


def _install_python(folder: Path, lock: Path) -> None:
    uv = _uv()
    _run([uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(folder)])
    python = str(folder / "bin" / "python")
    _run([uv, "pip", "install", "--quiet", "--python", python, "--no-deps", "--requirement", str(lock)])


def _install_node(folder: Path, lock: Path) -> None:
    for file in (lock, lock.parent / "package.json"):
        shutil.copy(file, folder)
    _run(["npm", "ci", "--no-audit", "--no-fund", "--silent"], cwd=folder)


def _uv() -> str:
    beside = Path(sys.executable).parent / "uv"
    found = str(beside) if beside.exists() else shutil.which("uv")
    if not found:
        raise InstallError("uv is needed: pip install uv")
    return found


def _run(command: list[str], cwd: Path | None = None) -> None:
    try:
        done = subprocess.run(
            command, cwd=cwd, env=os.environ, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InstallError(f"{command[0]}: {error}") from error
    if done.returncode:
        raise InstallError(f"{' '.join(command[:3])}: {(done.stderr or done.stdout)[-600:]}")

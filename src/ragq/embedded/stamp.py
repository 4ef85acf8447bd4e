"""The stamp of a data folder: which version of ragq used it last, so that an older one does not harm it."""

from __future__ import annotations

import json
from pathlib import Path

import ragq
from ragq.embedded.binaries import POSTGRESQL_MAJOR
from ragq.errors import ConfigurationError

STAMP = "version.json"


def check_folder(data_dir: Path) -> None:
    """Refuse a data folder that this version cannot use, and stamp one that it can.

    Patch releases of one minor version use the same folder in both directions; anything else goes forward only. A folder without a stamp
    is older than the stamp, or new.

    Raises:
        ConfigurationError: A newer ragq used the folder, or its PostgreSQL has another major version.
    """
    if (used_by := _read(data_dir / STAMP)) and _minor(used_by) > _minor(ragq.__version__):
        raise ConfigurationError(
            f"The data folder {data_dir} was used by ragq {used_by}, and this is {ragq.__version__}: a folder goes forward only. "
            f"Install ragq {used_by} or newer, or restore a backup that is older into a new folder."
        )
    version = data_dir / "postgresql" / "cluster" / "PG_VERSION"
    if version.exists() and (found := version.read_text().strip()) != str(POSTGRESQL_MAJOR):
        raise ConfigurationError(
            f"The data folder {data_dir} is of PostgreSQL {found}, and this ragq brings {POSTGRESQL_MAJOR}. Make a backup with the "
            "ragq that used it (`ragq backup`), and restore it with this one into a new folder (`ragq restore`)."
        )
    if used_by != ragq.__version__:
        partial = data_dir / f"{STAMP}.partial"
        partial.write_text(json.dumps({"ragq": ragq.__version__, "postgresql": POSTGRESQL_MAJOR}) + "\n")
        partial.replace(data_dir / STAMP)


def _read(path: Path) -> str | None:
    try:
        return str(json.loads(path.read_text())["ragq"])
    except FileNotFoundError:
        return None
    except (ValueError, LookupError, TypeError) as error:
        raise ConfigurationError(f"{path} is damaged: delete it if no newer ragq has used the folder.") from error


def _minor(version: str) -> tuple[int, ...]:
    """The major and the minor version, to compare."""
    return tuple(int(number) for number in version.split(".")[:2] if number.isdigit())

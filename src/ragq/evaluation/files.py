"""Files that people name on the command line: read as UTF-8, and written where that is known to work before a long run."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from ragq.errors import ConfigurationError

PICTURE = ".svg"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)  # such an error of writing names no file


def read_text(path: Path) -> str:
    """Read a text.

    Raises:
        ConfigurationError: There is none, or it is not in UTF-8; the message names the file and the line.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigurationError(f"There is no {path}.") from None
    except UnicodeDecodeError as error:
        line = 1 + error.object.count(b"\n", 0, error.start)
        raise ConfigurationError(f"{path.name}, line {line}: not UTF-8.") from error


def check_output(path: Path, *, with_picture: bool = False) -> None:
    """Make sure that a file can be written, before the work whose results go there.

    Args:
        with_picture: Whether a picture is written beside it.

    Raises:
        ConfigurationError: It cannot.
    """
    if not path.parent.is_dir():
        raise ConfigurationError(f"There is no folder {path.parent} to write {path.name} to.")
    if with_picture and path.suffix == PICTURE:
        raise ConfigurationError(f"{path} is the name of the picture: give another one, such as {path.stem}.json.")
    for one in (path, path.with_suffix(PICTURE)) if with_picture else (path,):
        if one.is_dir() or not os.access(one if one.exists() else one.parent, os.W_OK):
            raise ConfigurationError(f"{one} cannot be written: it may be a folder, or somebody else's.")


def explain(error: OSError | UnicodeDecodeError) -> ConfigurationError | None:
    """Say in words what is wrong with a file; None of an error that is about none, as of a connection."""
    if isinstance(error, UnicodeDecodeError):
        return ConfigurationError(f"A text is not in UTF-8, at byte {error.start}: {error.reason}.")
    if error.filename is not None:
        return ConfigurationError(f"{os.fsdecode(error.filename)}: {error.strerror}.")
    return ConfigurationError(f"It cannot be written: {error.strerror}.") if error.errno in _NO_ROOM else None

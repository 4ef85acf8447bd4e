"""Programs that tests need and that `make test` installs where it may."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest


def find_program(names: Sequence[str], *, install: str) -> str:
    """The path of the first of these programs that is there.

    Without one the tests that ask for it fail if CI is set, so that nothing is skipped there. On a developer's machine,
    where it may be impossible to install, they are skipped and the rest can be run.

    Args:
        install: How to get it.
    """
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}:/usr/sbin"
    for name in names:
        if found := shutil.which(name, path=path):
            return found
    message = f"{names[0]} is missing ({install})."
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)

"""How the commands of a page are read, and how what they print is compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pages import Step, matches, read_steps

PAGE = """
Start it:

<!-- test: runs on -->
```console
$ ragq up
…
ragq is up
```

<!-- test: new terminal -->
```console
$ curl -d '{}' \\
  http://127.0.0.1:8000/chat
{"status":"queued"}
$ true
```

```json
{"this": "is not run"}
```

<!-- test: not run, there is no Docker -->
```sh
docker compose up
```
"""


def test_the_steps_of_a_page_are_read_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(PAGE)
    assert read_steps(tmp_path / "page.md") == [
        Step("page.md:5", ("runs on",), "ragq up", "…\nragq is up"),
        Step("page.md:11", ("new terminal",)),
        Step("page.md:12", (), "curl -d '{}' \\\n  http://127.0.0.1:8000/chat", '{"status":"queued"}'),
        Step("page.md:12", (), "true", ""),
        Step("page.md:24", ("not run, there is no Docker",), "docker compose up"),
    ]
    assert read_steps(tmp_path / "page.md")[-1].reason_not_run == "there is no Docker"


def test_a_mark_without_a_block_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("<!-- test: again -->\n\nNothing follows.\n")
    with pytest.raises(AssertionError, match="no block follows"):
        read_steps(tmp_path / "page.md")


@pytest.mark.parametrize(
    ("expected", "printed", "is_right"),
    [
        ("queued in … ms", "queued in 12 ms", True),
        ("queued in … ms", "queued in 12 s", False),
        ("queued in … ms", "queued in\n12 ms", False),
        ("jobs  …     idle", "jobs          12  idle", True),
        ("jobs … idle", "jobs12idle", False),
        ("…\nit is up", "starting\nstill starting\nit is up\n", True),
        ("…\nit is up", "it is up", True),
        ("…\nit is up", "it is up\nand more", False),
        ("it is up", "it is  up", False),
        ("it is up", "IT IS UP", False),
        ("", "", True),
        ("", "an error", False),
        ("a.c", "abc", False),
    ],
)
def test_what_is_printed_must_be_what_the_page_says(expected: str, printed: str, is_right: bool) -> None:
    assert matches(expected, printed) is is_right

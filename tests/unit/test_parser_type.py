"""The type of a parsed document, which threads convert to."""

from __future__ import annotations

import ragq.parsing.parser
from ragq.models import ParsedDocument, Place, Table


def test_msgspec_has_prepared_the_type_of_a_parsed_document_before_any_thread_uses_it() -> None:
    assert ragq.parsing.parser
    for kind in (ParsedDocument, Place, Table):
        assert hasattr(kind, "__msgspec_cache__"), "two threads that prepare it at once crash the process"

"""Kinds of files are told by what is in them, not by their names."""

from __future__ import annotations

from pathlib import Path

import pytest

from ragq.parsing.kinds import Kind, detect
from ragq.parsing.writer import UnreadableError

FILES = Path(__file__).parents[1] / "files"


@pytest.mark.parametrize(
    ("sample", "kind"),
    [
        *((f"report.{suffix}", Kind[suffix.upper()]) for suffix in ("docx", "doc", "odt", "rtf", "epub")),
        *((f"prices.{suffix}", Kind[suffix.upper()]) for suffix in ("xlsx", "xls", "ods")),
        *((f"talk.{suffix}", Kind[suffix.upper()]) for suffix in ("pptx", "odp")),
        ("report.fodt", Kind.ODT),
        ("prices.fods", Kind.ODS),
    ],
)
@pytest.mark.parametrize("name", ["a", "a.txt", "a.docx", "a.csv"])
def test_documents_are_told_whatever_they_are_called(sample: str, kind: Kind, name: str) -> None:
    if sample.endswith((".fodt", ".fods")) and name == "a.csv":
        return  # it is text, so its name counts
    assert detect((FILES / sample).read_bytes(), name) is kind


@pytest.mark.parametrize(
    ("data", "name", "kind"),
    [
        (b"<html><body>words", "a.doc", Kind.HTML),
        (b"\n <table><tr><td>1", "a.xls", Kind.HTML),
        (b'<?xml version="1.0"?>\n<!DOCTYPE html PUBLIC "x">\n<html>', "a.xml", Kind.HTML),
        (b"\xef\xbb\xbf<!doctype HTML>", "a", Kind.HTML),
        (b'<?xml version="1.0"?><svg><text>words</text></svg>', "a.svg", Kind.TEXT),
        (b'{"cells": [{"cell_type": "code"}], "nbformat": 4}', "a", Kind.NOTEBOOK),
        (b'{"cells": 4}', "a.json", Kind.TEXT),
        (b"From a@b Sat Jan  6 00:00:00 2024\nSubject: x\n\nwords", "a", Kind.EML),
        (b"Return-Path: <a@b>\nSubject: x\n\nwords", "a", Kind.EML),
        (b"From: a@b\nTo: c@d\nSubject: x\n\nwords", "a", Kind.EML),
        (b"Name: x\nColour: y\n\nwords", "a", Kind.TEXT),
        (b"\r\n%PDF-1.7\n", "a.docx", Kind.PDF),
        (b"# How %PDF-1.4 begins\n", "a.md", Kind.MARKDOWN),
        (b"BMW builds cars", "a.txt", Kind.TEXT),
        (b"a,b\n1,2\n", "a.csv", Kind.CSV),
        (b"plain words", "a.docx", Kind.TEXT),
    ],
)
def test_texts_are_told_by_their_beginning(data: bytes, name: str, kind: Kind) -> None:
    assert detect(data, name) is kind


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC picture: save it as JPEG or PNG"),
        (b"\0\0\0\x1cftypavif\0\0\0\0", "AVIF picture"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0", "a video"),
        (b"\x1f\x8b\x08\0", "gzip"),
        (b"\x7fELF\x02\0", "a program"),
    ],
)
def test_what_is_not_read_is_named(data: bytes, words: str) -> None:
    with pytest.raises(UnreadableError, match=words) as caught:
        detect(data, "a")
    assert caught.value.code == "unsupported_file"

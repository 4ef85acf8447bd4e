"""Text in other encodings than UTF-8, and what stands in text files that is no text."""

from __future__ import annotations

import pytest

from ragq.parsing.encodings import decode
from ragq.parsing.readers import read
from ragq.parsing.writer import DocumentWriter, UnreadableError

TEXTS = {
    "German": "Die Straße zum Hafen war überschwemmt, und die Fähre fuhr nicht. Am Morgen öffnete die Bäckerei trotzdem. ",
    "French": "Les élèves, déçus, rentrèrent chez eux après avoir mangé une crêpe près de la fenêtre. Où ira-t-on l'été ? ",
    "Polish": "Statek wpłynął do portu rano, a kapitan zapisał godzinę przybycia. Stróż gasi światła, żeby nikt nie wszedł. ",
    "Russian": "Утром корабль вошёл в гавань, и капитан записал время прибытия в журнал. Пошлину платят в день прихода. ",
    "Greek": "Το πλοίο μπήκε στο λιμάνι το πρωί και ο καπετάνιος έγραψε την ώρα άφιξης. Τα τέλη πληρώνονται αμέσως. ",
    "Japanese": "朝早く船が港に入り、船長は到着の時刻を記録しました。料金は到着した日に支払います。カタカナもあります。",
    "Chinese": "清晨，船驶入港口，船长把到达时间写进日志。费用在到达当天支付，包括供水、垃圾处理和引航。",
    "Taiwanese": "清晨，船駛入港口，船長把到達時間寫進日誌。費用在到達當天支付，包括供水、垃圾處理和引航。",
    "Korean": "아침 일찍 배가 항구에 들어왔고 선장은 도착 시간을 기록했다. 요금은 도착한 날에 낸다. 저녁에는 문을 닫는다. ",
}
WIDE = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
CASES = [
    *(("cp1252", name) for name in ("German", "French")),
    *(("latin-1", name) for name in ("German", "French")),
    *((encoding, "Polish") for encoding in ("cp1250", "iso8859-2")),
    *((encoding, "Russian") for encoding in ("cp1251", "koi8-r")),
    ("cp1253", "Greek"),
    *((encoding, "Japanese") for encoding in ("shift-jis", "euc-jp")),
    ("gb18030", "Chinese"),
    ("big5", "Taiwanese"),
    ("euc-kr", "Korean"),
    *((encoding, name) for encoding in WIDE for name in ("German", "Russian", "Japanese", "Chinese")),
]


def make_document() -> DocumentWriter:
    return DocumentWriter(read, max_characters=1_000_000)


def warnings_of(document: DocumentWriter) -> list[str]:
    document.add_text("words")
    warnings = document.finish()[1]["warnings"]
    assert isinstance(warnings, list)
    return warnings


@pytest.mark.parametrize("size", [200, 20_000])
@pytest.mark.parametrize(("encoding", "language"), CASES)
def test_encodings_are_told_by_the_text(encoding: str, language: str, size: int) -> None:
    data = (TEXTS[language] * (size // 20)).encode(encoding)[:size]
    text = data.decode(encoding, "ignore")
    assert decode(text.encode(encoding), make_document()) == text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_is_no_part_of_the_text(encoding: str) -> None:
    document = make_document()
    assert decode("Grüße, 東京 \U0001f600".encode(encoding), document) == "Grüße, 東京 \U0001f600"
    assert document.encoding == encoding


def test_one_bad_byte_does_not_cost_the_file() -> None:
    document = make_document()
    text = decode("Grüße aus Łódź. ".encode() * 1000 + b"caf\xe9.", document)
    assert text == "Grüße aus Łódź. " * 1000 + "caf\ufffd."
    assert document.encoding == "utf-8"
    assert warnings_of(document) == ["1 byte is not utf-8: shown as \ufffd."]


def test_colours_and_control_characters_are_left_out_and_said() -> None:
    document = make_document()
    assert decode(b"\x1b[1;31mERROR\x1b[0m disk full\x00\x00\nb\x08bold\n", document) == "ERROR disk full\nbold\n"
    assert warnings_of(document) == [
        "3 codes for colours and the cursor were left out.",
        "2 control characters were left out.",
    ]


def test_carriage_returns_alone_are_line_ends() -> None:
    assert decode(b"one\rtwo\r\nthree", make_document()) == "one\ntwo\r\nthree"


def test_the_encoding_that_a_page_names_is_tried_before_others() -> None:
    assert decode("Ĺ".encode("iso8859-2"), make_document(), "ISO-8859-2") == "Ĺ"
    assert decode(b"Stra\xdfe \x80", make_document(), "iso-8859-1") == "Straße €"
    assert decode("Die Fähre fährt früh.".encode("cp1252"), make_document(), "rot13") == "Die Fähre fährt früh."


@pytest.mark.parametrize(
    ("data", "words", "code"),
    [
        (b" \n\t ", "No text found: the file holds only white space.", "no_text"),
        (bytes(range(256)) * 40, "The file is binary, not text, and of a kind that is not read.", "unsupported_file"),
        (b"words" + b"\x00" * 20, "The file is binary, not text, and of a kind that is not read.", "unsupported_file"),
    ],
)
def test_what_is_no_text_is_explained(data: bytes, words: str, code: str) -> None:
    with pytest.raises(UnreadableError) as caught:
        decode(data, make_document())
    assert (str(caught.value), caught.value.code) == (words, code)

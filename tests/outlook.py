"""Messages of Outlook for tests: a compound file by [MS-CFB] with the streams of [MS-OXMSG], as small as can be."""

from __future__ import annotations

import struct
from typing import Any

SECTOR, MINI = 512, 64
FREE, END, FAT, NONE = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD, 0xFFFFFFFF
Folder = dict[str, Any]  # name → bytes of a stream, or what is in a storage


def make_msg(
    subject: str, body: str, *, sender: str = "", to: str = "", attachments: tuple[tuple[str, bytes | Folder], ...] = ()
) -> bytes:
    """Make a message; an attachment that is a folder is a message within it, as `make_folder` makes it."""
    return write_compound_file(make_folder(subject, body, sender=sender, to=to, attachments=attachments, header=32))


def make_folder(
    subject: str,
    body: str,
    *,
    sender: str = "",
    to: str = "",
    attachments: tuple[tuple[str, bytes | Folder], ...] = (),
    header: int = 24,
) -> Folder:
    sent = struct.pack("<HHIQ", 0x40, 0x0039, 6, 133_540_000_000_000_000)
    folder: Folder = {"__properties_version1.0": bytes(header) + sent}
    for number, text in ((0x0037, subject), (0x1000, body), (0x0C1A, sender), (0x0E04, to)):
        folder[f"__substg1.0_{number:04X}001F"] = text.encode("utf-16-le")
    for number, (name, content) in enumerate(attachments):
        kind = "37010102" if isinstance(content, bytes) else "3701000D"
        folder[f"__attach_version1.0_#{number:08X}"] = {
            "__properties_version1.0": bytes(8),
            "__substg1.0_3707001F": name.encode("utf-16-le"),
            f"__substg1.0_{kind}": content,
        }
    return folder


def write_compound_file(root: Folder) -> bytes:
    entries: list[list[Any]] = []
    _add_entries("Root Entry", root, 5, entries)
    small = b""
    sectors: list[bytes] = []
    table: list[int] = []
    mini_table: list[int] = []

    def add_chain(data: bytes) -> int:
        first = len(sectors)
        parts = [data[at : at + SECTOR].ljust(SECTOR, b"\0") for at in range(0, len(data), SECTOR)]
        sectors.extend(parts)
        table.extend([*range(first + 1, first + len(parts)), END] if parts else [])
        return first if parts else END

    for entry in entries:
        data = entry[2]
        if not isinstance(data, bytes):
            continue
        if len(data) >= 4096:
            entry[3] = add_chain(data)
        elif data:
            entry[3], count = len(small) // MINI, -(-len(data) // MINI)
            mini_table += [*range(entry[3] + 1, entry[3] + count), END]
            small += data.ljust(count * MINI, b"\0")
    entries[0][3], entries[0][4] = add_chain(small), len(small)
    directory = add_chain(b"".join(_pack_entry(*entry) for entry in entries))
    mini = add_chain(b"".join(struct.pack("<I", number) for number in mini_table))
    count = 1
    while count * SECTOR // 4 < len(table) + count:
        count += 1
    first = len(sectors)
    table += [FAT] * count
    table += [FREE] * (count * SECTOR // 4 - len(table))
    fat = struct.pack(f"<{len(table)}I", *table)
    places = [*range(first, first + count), *[FREE] * (109 - count)]
    mini_sectors = -(-len(mini_table) * 4 // SECTOR)
    return _pack_header(count, directory, mini, mini_sectors, places) + b"".join(sectors) + fat


def _pack_header(count: int, directory: int, mini: int, mini_sectors: int, places: list[int]) -> bytes:
    header = bytes.fromhex("d0cf11e0a1b11ae1") + bytes(16) + struct.pack("<5H6x", 0x3E, 3, 0xFFFE, 9, 6)
    header += struct.pack("<9I", 0, count, directory, 0, 4096, mini, mini_sectors, END, 0)
    return header + struct.pack("<109I", *places)


def _add_entries(name: str, content: Any, kind: int, entries: list[list[Any]]) -> int:
    """Add a directory entry and those below it: name, kind, content, first sector, size, right sibling, first child."""
    number = len(entries)
    is_stream = isinstance(content, bytes)
    entries.append([name, kind, content, END if is_stream else 0, len(content) if is_stream else 0, NONE, NONE])
    before = NONE
    for child, below in (
        () if is_stream else sorted(content.items(), key=lambda item: (len(item[0]), item[0]), reverse=True)
    ):
        added = _add_entries(child, below, 2 if isinstance(below, bytes) else 1, entries)
        entries[added][5] = before
        before = added
    entries[number][6] = before
    return number


def _pack_entry(name: str, kind: int, content: Any, first: int, size: int, right: int, child: int) -> bytes:
    del content
    encoded = name.encode("utf-16-le") + b"\0\0"
    return encoded.ljust(64, b"\0") + struct.pack(
        "<HBBIII36xIQ", len(encoded), kind, 1, NONE, right, child, first, size
    )

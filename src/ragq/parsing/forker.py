"""The forker: the process that forks a child for each file to parse.

Run as `python -m ragq.parsing.forker`, with a socket as standard input. It has loaded what reading needs and never touches a
user's file, so a child starts clean, and in milliseconds; what it imports is copied by each fork. A request is one byte with four descriptors: the file to read,
and sockets for the child's standard output, its standard error and the caller's line. On its line the caller has sent the
arguments of `extract.main` as a JSON array, and receives the child's exit code. If the caller closes its line, the child
is killed; when standard input ends, all children are.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import select
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

from ragq.parsing import extract, readers
from ragq.parsing.isolation import refuse_network
from ragq.parsing.writer import DocumentWriter

HANDBOOK = Path(__file__).resolve().parents[1] / "handbook" / "handbook.pdf"

PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of linux/prctl.h
LIBRARY = ctypes.CDLL(None) if sys.platform == "linux" else None

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from malloc.h
KEPT_BYTES = 32 << 20
GC_THRESHOLD = 10_000  # net allocations in a child before a collection: a document's objects live to its end

Children = dict[socket.socket, int]  # the caller's line → the child


def serve(requests: socket.socket) -> None:
    """Fork a child for each request, until standard input ends."""
    children: Children = {}
    ended = _notice_ended_children()
    while True:
        ready, _, _ = select.select([requests.fileno(), ended, *(one.fileno() for one in children)], [], [])
        if ended in ready:
            os.read(ended, 4096)
        for caller, child in list(children.items()):
            if caller.fileno() in ready:
                _kill(child)
            _reap(children, caller)
        if requests.fileno() in ready:
            message, descriptors, _, _ = socket.recv_fds(requests, 1, 4)
            if not message:
                break
            file, output, errors, line = descriptors
            caller = socket.socket(fileno=line)
            with caller.makefile() as lines:
                request = json.loads(lines.readline())
            children[caller] = os.fork() or _read(request, file, output, errors)
            for descriptor in (file, output, errors):
                os.close(descriptor)
    for child in children.values():
        _kill(child)


def _notice_ended_children() -> int:
    """Return a descriptor that becomes readable when a child has ended."""
    ended, notice = os.pipe()
    os.set_blocking(ended, False)
    os.set_blocking(notice, False)
    signal.set_wakeup_fd(notice, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return ended


def _read(request: list[Any], file: int, output: int, errors: int) -> NoReturn:
    """Run in the forked child: keep only the standard streams, start a new session, parse one file, exit."""
    code: object = 1
    try:
        os.setsid()
        _end_without_parent(request[1] + extract.ALARM_SECONDS)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(file, 0)
        os.dup2(output, 1)
        os.dup2(errors, 2)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        extract.main(*request)
        code = 0
    except SystemExit as error:
        code = error.code
    except BaseException:  # noqa: BLE001  (the child ends here on any error)
        traceback.print_exc()
    finally:
        os._exit(code if isinstance(code, int) else 1)


def _end_without_parent(seconds: int) -> None:
    """Die with the parent: at once on Linux (PR_SET_PDEATHSIG), by an alarm elsewhere."""
    signal.alarm(seconds)
    if LIBRARY:
        LIBRARY.prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)


def _reap(children: Children, caller: socket.socket) -> None:
    """If the caller's child has ended, send its exit code and kill all that it started."""
    child, status = os.waitpid(children[caller], os.WNOHANG)
    if not child:
        return
    _kill(child)
    del children[caller]
    with caller, contextlib.suppress(OSError):  # the caller may be gone
        caller.send(str(os.waitstatus_to_exitcode(status)).encode())


def _kill(child: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)


def _keep_freed_memory() -> None:
    """Keep what is freed for the next allocation (glibc only): children soon end, and new pages cost time."""
    if set_option := getattr(LIBRARY, "mallopt", None):
        set_option(M_TRIM_THRESHOLD, KEPT_BYTES)
        set_option(M_MMAP_THRESHOLD, KEPT_BYTES)


def main() -> None:
    """Load what children need, then serve standard input."""
    readers.load()  # 8 MB together, and 0.2 s
    for first, name in ((HANDBOOK.read_bytes(), HANDBOOK.name), (b"# First", "first.md")):
        document = DocumentWriter(readers.read, max_characters=extract.WRITTEN_CHARACTERS)
        readers.read(first, name, document)
        document.finish()
    if not refuse_network():
        print("ragq: this system cannot refuse the network to processes that read documents.", file=sys.stderr)  # noqa: T201
    _keep_freed_memory()
    gc.freeze()  # so that a collection in a child does not copy our memory
    gc.set_threshold(GC_THRESHOLD)
    with socket.socket(fileno=sys.stdin.fileno()) as requests:
        serve(requests)


if __name__ == "__main__":
    main()

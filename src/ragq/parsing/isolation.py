"""Keep processes that read untrusted files from the network and from tracing others, by a seccomp filter (Linux)."""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
import sys

_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER_MODE = 38, 22, 2  # of linux/prctl.h and linux/seccomp.h
_REFUSE, _ALLOW = 0x00050000 | errno.EACCES, 0x7FFF0000
_NUMBER, _ARCHITECTURE = 0, 4  # offsets in struct seccomp_data
_LOAD, _IS_EQUAL, _IS_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # of linux/filter.h
_X32 = 0x40000000  # system calls of x86-64's second table start here
# socket, socketpair (a datagram socket of a pair can connect to others), io_uring_setup (it can make sockets), ptrace,
# process_vm_readv, process_vm_writev, pidfd_getfd
_REFUSED = {
    "x86_64": (0xC000003E, (41, 53, 425, 101, 310, 311, 438)),
    "aarch64": (0xC00000B7, (198, 199, 425, 117, 270, 271, 438)),
}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def refuse_network() -> bool:
    """Refuse to this process, and to all that it starts, new sockets and the calls that trace other processes, for good.

    `/proc` stays: what the user may read and write there, a child may too.

    It needs no privileges. Returns False where it is not supported: beyond Linux on x86-64 and ARM64, or in old kernels.
    """
    if sys.platform != "linux" or platform.machine() not in _REFUSED:
        return False
    code = _make_filter(*_REFUSED[platform.machine()])
    program = _Program(len(code) // 8, code)
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        return False
    return not library.prctl(_SET_SECCOMP, _FILTER_MODE, ctypes.byref(program), 0, 0)


def _make_filter(architecture: int, refused: tuple[int, ...]) -> bytes:
    """Assemble the filter: refuse the calls named, and every call of another architecture's table."""
    checks = [(_IS_AT_LEAST, _X32), *((_IS_EQUAL, number) for number in refused)]
    lines = [(_LOAD, 0, 0, _ARCHITECTURE), (_IS_EQUAL, 0, len(checks) + 2, architecture), (_LOAD, 0, 0, _NUMBER)]
    lines += [(check, len(checks) - place, 0, value) for place, (check, value) in enumerate(checks)]
    lines += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _REFUSE)]
    return b"".join(struct.pack("=HBBI", *line) for line in lines)

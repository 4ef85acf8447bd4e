"""A proxy in front of the service whose connections can be cut, as by a network failure."""

from __future__ import annotations

import contextlib
import math
import socket
import threading
from typing import Self
from urllib.parse import urlsplit


class Cutter:
    """Forwards bytes between clients and a service; use it with `with`.

    Args:
        most: So many bytes of a connection are passed on to the service, about, until the network is cut.
    """

    def __init__(self, url: str, *, most: float = math.inf) -> None:
        self._target = urlsplit(url).hostname, urlsplit(url).port
        self._most, self._was_cut = most, threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        self._open: set[socket.socket] = set()
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Cut all connections; new ones are accepted."""
        self._was_cut.set()
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                upstream = socket.create_connection(self._target)
                self._open |= {client, upstream}
                for pair in ((client, upstream, self._most), (upstream, client, math.inf)):
                    threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, most: float) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(1 << 16):
                sink.sendall(piece)
                most -= len(piece)
                if most < 0:
                    self._was_cut.wait()
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
            self._open.discard(one)

"""A slow endpoint in a process of its own: `GET /wait?sent=T` answers after the latency and records its delay since T.

`T` is the caller's `time.time()` when it enqueued the job. `GET /report` returns the delays since the last report. Raw
asyncio, so that the endpoint takes little CPU, also with thousands of connections.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import subprocess
import sys
import time
import urllib.request
from typing import Any, Self, cast

REQUEST = re.compile(rb"GET /(\w+)(?:\?sent=([\d.]+))? [^\r]*\r\n(?:[^\r]+\r\n)*\r\n")


class _Connection(asyncio.Protocol):
    """One client's connection; `delays` of all connections are shared."""

    def __init__(self, latency: float, delays: list[float]) -> None:
        self._latency, self._delays = latency, delays
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._rest += data
        while request := REQUEST.match(self._rest):
            self._rest = self._rest[request.end() :]
            if request[1] == b"wait":
                self._delays.append(time.time() - float(request[2]))
                asyncio.get_running_loop().call_later(self._latency, self._answer, b"ok")
            else:
                self._answer(json.dumps(self._delays).encode())
                self._delays.clear()

    def _answer(self, body: bytes) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(body)
        self._transport.write(head + body)


class Endpoint:
    """The endpoint's process; use it with `with`."""

    def __init__(self, latency: float) -> None:
        line = [sys.executable, "-m", "benchmarks.endpoint", "--latency", str(latency)]
        self._process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        self.url = self._process.stdout.readline().strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(10)
        assert self._process.stdout
        self._process.stdout.close()

    def delays(self) -> list[float]:
        """Seconds from enqueue to call, for each call since the last report."""
        with urllib.request.urlopen(f"{self.url}/report") as answer:
            delays: list[float] = json.load(answer)
        return delays


async def serve(latency: float) -> None:
    """Listen on a free port of loopback, print it, and serve."""
    delays: list[float] = []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(latency, delays), "127.0.0.1", 0, backlog=4096)
    host, port = server.sockets[0].getsockname()[:2]
    print(f"http://{host}:{port}", flush=True)
    await server.serve_forever()


def main(arguments: list[Any] | None = None) -> None:
    """Run the endpoint until it is stopped."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.endpoint", description=__doc__)
    parser.add_argument("--latency", type=float, default=1.0, help="seconds")
    asyncio.run(serve(parser.parse_args(arguments).latency))


if __name__ == "__main__":
    main()

"""A real PgBouncer in front of a test's PostgreSQL."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, quote, urlsplit

import psycopg

from tests.programs import find_program
from tests.servers import free_port, wait_until
from tests.tls import Certificate


class PgBouncer:
    """PgBouncer on a port of loopback; use it with `with`.

    Args:
        database_url: URL of a PostgreSQL that listens on a socket.
        certificate: If set, clients must use TLS with it.
        options: More lines for the `[pgbouncer]` section.
    """

    def __init__(self, database_url: str, *, certificate: Certificate | None = None, **options: object) -> None:
        parts = urlsplit(database_url)
        self._server_folder = Path(parse_qs(parts.query)["host"][0])
        self._password = parts.password or ""
        self._name = parts.path.strip("/")
        self._port = free_port()
        self._options = dict(options)
        self._folder = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
        if certificate:  # copied, because the account may not be able to read it
            names: dict[str, Path] = {"client_tls_cert_file": certificate.file, "client_tls_key_file": certificate.key}
            copies = {name: Path(shutil.copy(file, self._folder)) for name, file in names.items()}
            copies["client_tls_key_file"].chmod(0o644)
            self._options |= {"client_tls_sslmode": "require", **copies}
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"postgresql://ragq:{quote(self._password, safe='')}@127.0.0.1:{self._port}/{self._name}"

    def __enter__(self) -> Self:
        program = find_program(["pgbouncer"], install="on Debian: apt-get install pgbouncer")
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": self._port,
            "unix_socket_dir": "",
            "auth_type": "scram-sha-256",
            "auth_file": self._folder / "users.txt",
        } | self._options
        lines = [f"{name} = {value}" for name, value in settings.items()]
        # The server's folder is its working directory, because the account may not be able to enter the path.
        target = "[databases]\n* = host=/proc/self/cwd port=5432\n[pgbouncer]\n"
        (self._folder / "pgbouncer.ini").write_text(target + "\n".join(lines) + "\n")
        (self._folder / "users.txt").write_text(f'"ragq" "{self._password}"\n')
        self._folder.chmod(0o755)
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [program, "--quiet", str(self._folder / "pgbouncer.ini")],
                cwd=self._server_folder,
                stdout=log,
                stderr=log,
                **self._account(),
            )
        wait_until(self._answers, what="PgBouncer answers")
        return self

    def _account(self) -> dict[str, Any]:
        """The account to run under, since PgBouncer refuses to run as root."""
        if os.geteuid() != 0:
            return {}
        nobody = pwd.getpwnam("nobody")
        return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}

    def _answers(self) -> bool:
        assert self._process
        assert self._process.poll() is None, (self._folder / "log").read_text()
        try:
            psycopg.connect(self.url, connect_timeout=3).close()
        except psycopg.OperationalError:
            return False
        return True

    def __exit__(self, *_: object) -> None:
        if self._process:
            self._process.terminate()
            self._process.wait(10)
        shutil.rmtree(self._folder)

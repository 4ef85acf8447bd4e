"""Make stand-ins for the base images of compose.yaml and the Dockerfile, for machines that reach no image registry.

They are built from Debian's packages with mmdebstrap and get the real images' names, so that compose.yaml and the Dockerfile
run unchanged: `python:3.12-slim`, `valkey/valkey:8` and `pgvector/pgvector:pg18`. They have what ragq uses of the real ones
(commands, folders, users, and the variables POSTGRES_…) and no more. Never publish them, and do not make them where
`docker pull` works: there the real images are used.

It needs root, mmdebstrap and a Docker engine. The stand-in for Python trusts the certificates that this machine trusts, so
that pip works behind a proxy; without `--python` it has Debian's Python, which is another version than its name says.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
# As in Debian's images for Docker: packages that are installed leave neither archives nor caches.
APT_CLEAN = """DPkg::Post-Invoke {"rm -f /var/cache/apt/archives/*.deb || true";};
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
"""
VALKEY_ENTRYPOINT = """#!/bin/sh
set -eu
[ "$1" = valkey-server ] && [ "$(id -u)" = 0 ] || exec "$@"
chown -R valkey:valkey .
exec setpriv --reuid valkey --regid valkey --clear-groups "$@"
"""
POSTGRES_ENTRYPOINT = """#!/bin/sh
set -eu
if [ "$(id -u)" = 0 ]; then
    install --directory --owner postgres --group postgres "$PGDATA" /var/run/postgresql
    exec setpriv --reuid postgres --regid postgres --clear-groups "$0" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    printf %s "$POSTGRES_PASSWORD" > /tmp/password
    initdb --username "$POSTGRES_USER" --pwfile /tmp/password --auth-host scram-sha-256 --auth-local trust
    rm /tmp/password
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
    pg_ctl --wait --options "-c listen_addresses=" start
    createdb --username "$POSTGRES_USER" "$POSTGRES_DB"
    pg_ctl --wait --mode fast stop
fi
exec "$@" -c listen_addresses='*'
"""


@dataclass(frozen=True)
class Image:
    """How a stand-in is made: mmdebstrap's suite, packages and last commands, and Docker's settings."""

    name: str
    suite: str
    packages: list[str]
    commands: list[str]
    changes: list[str] = field(default_factory=list)


def python_image(prefix: Path | None) -> Image:
    """Debian's Python, or a copy of an installation that was compiled on this release of Debian."""
    certificates = f'cp {CERTIFICATES} "$1{CERTIFICATES}"'
    changes = [
        f"ENV PIP_CERT={CERTIFICATES}",
        "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        'CMD ["python3"]',
    ]
    if prefix is None:
        links = "ln -s /usr/bin/python3 /usr/local/bin/python; ln -s /usr/bin/pip3 /usr/local/bin/pip"
        links += "; rm /usr/lib/python3*/EXTERNALLY-MANAGED"  # the real image's pip installs for all
        packages = ["ca-certificates", "python3", "python3-pip", "python3-venv"]
        return Image(
            "python:3.12-slim", "trixie", packages, [certificates, f'chroot "$1" sh -c {shlex.quote(links)}'], changes
        )
    left_out = "--exclude=test --exclude='*.a' --exclude=__pycache__ --exclude=site-packages"
    copy = f'tar --create --directory {prefix} {left_out} . | tar --extract --no-same-owner --directory "$1/usr/local"'
    packages = (
        "ca-certificates libbz2-1.0 libffi8 liblzma5 libncursesw6 libreadline8 libsqlite3-0 libssl3 "
        "usr-is-merged zlib1g"
    ).split()
    commands = "ldconfig && python3 -m ensurepip && ln -sf pip3 /usr/local/bin/pip"
    commands += " && apt-get -qq purge perl-modules-5.36"  # with usrmerge, which brought all of Perl
    strip = 'find "$1/usr/local" -name "*.so*" -type f -exec strip {} +'
    pip = f'chroot "$1" sh -c {shlex.quote(commands)}'
    return Image("python:3.12-slim", "bookworm", packages, [certificates, copy, strip, pip], changes)


def server_image(
    name: str, suite: str, packages: list[str], entrypoint: str, changes: list[str], folder: Path
) -> Image:
    """A server with an entrypoint that does what ragq needs of the real image's."""
    script = folder / f"entrypoint-{suite}"
    script.write_text(entrypoint)
    install = f'install --mode 755 {script} "$1/usr/local/bin/docker-entrypoint.sh"'
    return Image(name, suite, packages, [install], [*changes, 'ENTRYPOINT ["docker-entrypoint.sh"]'])


def make(image: Image, folder: Path) -> None:
    """Build a root file system, and import it into the engine."""
    root = folder / f"{image.suite}.tar"
    options = [
        "--quiet",
        "--variant=minbase",
        '--aptopt=APT::Install-Recommends "false"',
        '--aptopt=Acquire::Check-Valid-Until "false"',  # a mirror may lag
        *(f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in ("doc", "locale", "man")),
        f"--include={','.join(image.packages)}",
        *(f"--customize-hook={command}" for command in image.commands),
        f'--customize-hook=printf %s {shlex.quote(APT_CLEAN)} > "$1/etc/apt/apt.conf.d/docker-clean"',
        '--customize-hook=rm "$1"/var/cache/apt/*.bin',
    ]
    subprocess.run(["mmdebstrap", *options, image.suite, str(root)], check=True)
    changes = [word for change in image.changes for word in ("--change", change)]
    subprocess.run(["docker", "import", *changes, str(root), image.name], check=True)
    root.unlink()


def main() -> None:
    """Make the three of them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--python", type=Path, metavar="PREFIX", help="an installed Python 3.12 to copy")
    arguments = parser.parse_args()
    if not shutil.which("mmdebstrap"):
        sys.exit("mmdebstrap is missing: apt-get install mmdebstrap.")
    with tempfile.TemporaryDirectory() as folder:
        valkey = ["VOLUME /data", "WORKDIR /data", 'CMD ["valkey-server"]']
        postgres = [
            "ENV PGDATA=/var/lib/postgresql/18/docker",
            "ENV LANG=C.UTF-8",
            "ENV PATH=/usr/lib/postgresql/18/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "VOLUME /var/lib/postgresql",
            'CMD ["postgres"]',
        ]
        make(python_image(arguments.python), Path(folder))
        for name, suite, packages, entrypoint, changes in (
            ("valkey/valkey:8", "trixie", ["valkey-server", "valkey-tools"], VALKEY_ENTRYPOINT, valkey),
            ("pgvector/pgvector:pg18", "forky", ["postgresql-18-pgvector"], POSTGRES_ENTRYPOINT, postgres),
        ):
            make(server_image(name, suite, packages, entrypoint, changes, Path(folder)), Path(folder))


if __name__ == "__main__":
    main()

"""The limit on open files and sockets of a process."""

from __future__ import annotations

import resource

MOST = 65_536  # no process needs more, and some libraries loop over all numbers up to the limit


def raise_descriptor_limit() -> int:
    """Raise this process's limit on descriptors as far as allowed; returns the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        return allowed
    return MOST if soft == resource.RLIM_INFINITY else soft

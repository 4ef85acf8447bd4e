"""Which statements may see the rows of all tenants. A new one is a decision, so it is added here, with its reason."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import ragq

SOURCE = Path(ragq.__file__).parent
# Functions by file, and why row-level security cannot hold for them.
FOR_ALL = {
    "storage/archive.py": {
        "store",
        "list_kept",
        "_in_batches",
    },  # housekeeping writes the answers of many tenants at once
    "storage/audit.py": {"count_rows_of", "list_unowned_bytes"},  # `ragq doctor --audit` looks for what has no owner
    "storage/batches.py": {
        "list_unfinished",
        "lock",
    },  # a runner takes whichever batch is the oldest; a lock has no rows
    "storage/console/job_actions.py": {"claim", "advance", "expire"},  # housekeeping
    "storage/console/jobs.py": {"_find_rare", "expire"},  # ids alone, by the index of words; housekeeping
    "storage/database.py": {"check_suitable", "for_one_or_all"},  # reads a setting; below
    "storage/files.py": {
        "list_expired",  # housekeeping
        "locked_bytes",  # a lock has no rows
        "list_bytes",  # the audit
        "list_files_of",  # tenants may share bytes, which are deleted when no tenant has them
        "find_poison",  # of bytes, whoever has them
        "forgive_poison",
    },
    "storage/search/chunks.py": {
        "find_scope",  # a search makes another tenant's shared store active, which the tenant itself may not change
        "_word_shares",  # PostgreSQL shows its statistics only to who sees every row
    },
    "storage/search/replica.py": {"run", "_has_replayed", "_answers", "_close_promoted"},  # ask a server how it is
    "storage/store_files.py": {"list_unfinished", "list_wrong_chunk_counts"},  # the sweeper and the audit
    "storage/tenancy/api_keys.py": {"open", "open_id"},  # the tenant is found by the key
    "storage/tenancy/audit_log.py": {
        "add",  # the actor's key may be of another tenant
        "settle",  # as what it has added
        "expire",  # housekeeping
    },
    "storage/tenancy/sessions.py": {"open", "end", "expire"},  # the tenant is found by the session; housekeeping
    "storage/tenancy/usage.py": {
        "add",  # housekeeping adds up the jobs of many tenants at once
        "budgets",  # housekeeping
    },
    "storage/tenancy/tenant_data.py": {  # removes a tenant, with what others must not have in common
        "list_files",
        "release_bytes",
        "list_uploads",
        "list_responses",
        "delete_rows",
        "delete_tenant",
    },
    "storage/tenancy/tenants.py": {
        "create",
        "get",
        "list_tenants",
        "suspend",
        "open",
        "update",
        "read_shares",
        "mark_deleted",
        "list_deleted",
    },  # the operator's
    "storage/uploads.py": {"expire"},  # housekeeping
    "storage/vector_index.py": {"is_index_due"},  # one index for all tenants
    "storage/vector_stores.py": {"empty_expired"},  # housekeeping
    "storage/webhooks.py": {"claim", "find_trace", "settle", "disable", "expire"},  # one loop delivers for all tenants
}
# Of one tenant, or of all for the operator.
FOR_ONE_OR_ALL = {
    "storage/console/job_actions.py": {"get", "stop"},
    "storage/console/jobs.py": {"list_jobs", "count", "list_rates"},
    "storage/console/poison.py": {"list_files"},
    "storage/tenancy/audit_log.py": {"list_entries"},
    "storage/tenancy/usage.py": {"report"},
}
# A connection of one's own, past the pool: for migrations, the index of vectors, another embedding model, and removals.
SESSION = {
    "storage/database.py": {"migrate", "check_suitable"},
    "storage/search/reembedding.py": {"reembedding"},
    "storage/tenancy/tenant_data.py": {"claimed"},
    "storage/vector_index.py": {"make_index"},
}


def find_callers(method: str) -> dict[str, set[str]]:
    """Find the functions of the storage, which alone has SQL, that name a method, by file."""
    callers: dict[str, set[str]] = {}
    for path in (SOURCE / "storage").rglob("*.py"):
        for function, call in calls_in(ast.parse(path.read_text()), "<module>"):
            if call.attr == method:
                callers.setdefault(str(path.relative_to(SOURCE)), set()).add(function)
    return callers


def calls_in(node: ast.AST, function: str) -> Iterator[tuple[str, ast.Attribute]]:
    """Yield each attribute with the name of the innermost function around it."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from calls_in(child, child.name)
        else:
            if isinstance(child, ast.Attribute):
                yield function, child
            yield from calls_in(child, function)


def test_each_statement_for_all_tenants_is_one_that_was_decided() -> None:
    assert find_callers("for_all") == FOR_ALL
    assert find_callers("for_one_or_all") == FOR_ONE_OR_ALL


def test_each_connection_past_the_pool_is_one_that_was_decided() -> None:
    assert find_callers("session") == SESSION

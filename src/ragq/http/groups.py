"""What the groups of a person who signs in allow them (`RAGQ_OIDC_ROLES`)."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ragq.accounts.roles import Role
from ragq.errors import ConfigurationError
from ragq.settings import split_list

EVERYONE = "*"  # those in no other group that is named
NO_TEXT = re.compile("[\0\ud800-\udfff]")  # what PostgreSQL stores in no text
RULE = re.compile(r"(?P<tenant>[^:\s]+):(?P<role>reader|user|admin)")


@dataclass(frozen=True, slots=True)
class Rule:
    """A role in a tenant, for the members of a group."""

    group: str
    tenant: str
    role: Role


def read_rules(text: str) -> list[Rule]:
    """Read the setting: `group=tenant:role, …`, or a JSON object, for groups whose names have commas.

    Raises:
        ConfigurationError: It has another form.
    """
    if text.startswith("{"):
        try:
            pairs = list(json.loads(text).items())
        except ValueError as error:
            raise ConfigurationError(f"RAGQ_OIDC_ROLES is not JSON: {error}.") from error
    else:
        pairs = [(group.strip(), rule.strip()) for group, _, rule in (one.rpartition("=") for one in split_list(text))]
    return [_read_rule(group, rule) for group, rule in pairs]


def _read_rule(group: str, text: Any) -> Rule:
    match = RULE.fullmatch(text) if isinstance(text, str) else None
    if not match or not group:
        raise ConfigurationError(
            f"RAGQ_OIDC_ROLES: '{group}={text}' is not of the form group=tenant:role, with the role reader, user or admin."
        )
    return Rule(group, match["tenant"], Role(match["role"]))


def choose_role(rules: list[Rule], groups: Collection[str]) -> tuple[str, Role] | None:
    """Choose a tenant and the role in it; None if no rule is for these groups.

    The tenant is that of the first rule that applies, and the role the highest of those that apply to this tenant.
    """
    applying = [rule for rule in rules if rule.group in groups and rule.group != EVERYONE]
    applying = applying or [rule for rule in rules if rule.group == EVERYONE]
    if not applying:
        return None
    tenant = applying[0].tenant
    return tenant, max((rule.role for rule in applying if rule.tenant == tenant), key=lambda role: role.rank)


def find_groups(claims: Mapping[str, Any], path: str) -> list[str]:
    """Find a person's groups in a claim, which is named as it is, or by a path into objects.

    Args:
        path: `groups`, or `realm_access.roles`.

    Returns:
        None at all if there is no such claim; one if the claim is a text.
    """
    found: Any = claims.get(path)
    if found is None:
        found = claims
        for name in path.split("."):
            found = found.get(name) if isinstance(found, Mapping) else None
    found = [found] if isinstance(found, str) else found
    return [clean(group) for group in found if isinstance(group, str)] if isinstance(found, list) else []


def clean(text: str) -> str:
    """Replace U+0000 and lone surrogates, which a claim may have and no text can, so that none becomes another that is valid."""
    return NO_TEXT.sub("\ufffd", text)

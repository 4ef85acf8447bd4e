"""Which tenant and role the groups of a person give."""

from __future__ import annotations

from typing import Any

import pytest

from ragq.accounts.roles import Role
from ragq.errors import ConfigurationError
from ragq.http.groups import Rule, choose_role, find_groups, read_rules


@pytest.mark.parametrize(
    "text",
    [
        "staff=acme:user, cn=leads=acme:admin ,",
        '{"staff": "acme:user", "cn=leads": "acme:admin"}',
    ],
)
def test_rules_are_read_from_pairs_and_from_json(text: str) -> None:
    assert read_rules(text) == [Rule("staff", "acme", Role.USER), Rule("cn=leads", "acme", Role.ADMIN)]


@pytest.mark.parametrize(
    "text",
    [
        "staff",
        "=acme:user",
        "staff=acme",
        "staff=:user",
        "staff=acme:operator",
        "staff=acme:owner",
        '{"staff": ["acme:user"]}',
        '{"staff": ',
        '{"staff": null}',
    ],
)
def test_a_rule_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="RAGQ_OIDC_ROLES"):
        read_rules(text)


@pytest.mark.parametrize(
    ("groups", "found"),
    [
        (["staff"], ("acme", Role.USER)),
        (["leads", "staff"], ("acme", Role.ADMIN)),
        (["board", "leads"], ("acme", Role.ADMIN)),
        (["board"], ("birch", Role.ADMIN)),
        (["guests"], ("acme", Role.READER)),
        (["*", "guests"], ("acme", Role.READER)),
        ([], ("acme", Role.READER)),
    ],
)
def test_the_first_rule_gives_the_tenant_and_all_of_it_the_role(groups: list[str], found: tuple[str, Role]) -> None:
    rules = read_rules("*=acme:reader, staff=acme:user, leads=acme:admin, board=birch:admin")
    assert choose_role(rules, groups) == found


def test_without_a_rule_for_all_others_they_have_no_role() -> None:
    assert choose_role(read_rules("staff=acme:user"), ["guests", "*"]) is None


@pytest.mark.parametrize(
    ("claims", "path", "groups"),
    [
        ({"groups": ["a", "b"]}, "groups", ["a", "b"]),
        ({"groups": ["a", 1, None]}, "groups", ["a"]),
        ({"hd": "example.com"}, "hd", ["example.com"]),
        ({"realm_access": {"roles": ["a"]}}, "realm_access.roles", ["a"]),
        ({"https://example.com/groups": ["a"]}, "https://example.com/groups", ["a"]),
        ({"realm_access": ["roles"]}, "realm_access.roles", []),
        ({"groups": {"a": True}}, "groups", []),
        ({}, "groups", []),
    ],
)
def test_groups_are_found_by_name_or_by_path(claims: dict[str, Any], path: str, groups: list[str]) -> None:
    assert find_groups(claims, path) == groups


def test_what_is_no_text_in_a_group_makes_it_no_other_group() -> None:
    assert find_groups({"groups": ["ad\0min", "staff\ud83d"]}, "groups") == ["ad\ufffdmin", "staff\ufffd"]

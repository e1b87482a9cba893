"""Names of conversations, and whatever else a client may send in their place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.names import direct_members, direct_users, group_conv, group_id
from storage.records import Member


def test_names_are_read() -> None:
    assert direct_users("d/5/9") == (5, 9)
    assert direct_users("d/7/7") == (7,)
    assert group_id("g/12") == 12
    assert group_conv(12) == "g/12"
    assert direct_members("d/5/9") == [Member("d/5/9", 5), Member("d/5/9", 9)]


@pytest.mark.parametrize(
    "name",
    ["", "d", "d/", "d/5", "d//9", "d/5/9/1", "d/-5/9", "d/٣/9", "d/5/²", "d/5/99999999999999999"],
)
def test_what_names_no_direct_conversation_has_no_users(name: str) -> None:
    assert direct_users(name) == ()


@pytest.mark.parametrize(
    "name", ["", "g", "g/", "g/x", "g/1/2", "g/-1", "d/1", "g/99999999999999999"]
)
def test_what_names_no_group_has_no_id(name: str) -> None:
    assert group_id(name) is None


@given(st.text())
def test_any_text_is_read_without_harm(name: str) -> None:
    assert len(direct_users(name)) <= 2
    assert group_id(name) is None or name.startswith("g/")

"""The words of single faults of koi.conf: they say what would be right, also to who has written a right number in quotes."""

from __future__ import annotations

import pytest

from koi.config import loads
from koi.errors import ConfigError


@pytest.mark.parametrize("text, words", [
    ('cluster: {port: "42012"}', "whole number from 1 to 65535, without quotes"), ("cluster: {port: 0}", "from 1 to 65535"),
    ("cluster: {quorum: '1'}", "majority or a number of electors, without quotes"),
    ("service: {auto_recover_wait_factor: '2'}", "a number from 1 to 1000, without quotes"),
    ("node:\n\tname: a", "any.conf:2: is not YAML: a tab where only blanks may stand; indent with blanks"),
])
def test_a_fault_says_what_would_be_right(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loads(text.encode(), "any.conf", password="correct horse")
    assert caught.value.faults[0].endswith(words)

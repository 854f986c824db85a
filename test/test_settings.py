"""Dataclasses from plain values."""

import math
from dataclasses import dataclass, field
from typing import Any

import pytest

from ser_ros import SerError
from ser_ros.settings import build


@dataclass(frozen=True)
class Inner:
    size: int = 1
    span: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner = field(default_factory=Inner)
    parts: dict[str, list[str]] = field(default_factory=dict)
    numbers: tuple[float, ...] = ()
    anything: Any = None


def test_values_become_what_the_fields_are():
    values = {
        'name': 'a',
        'inner': {'size': 2, 'span': [1, 2]},
        'parts': {'train': ['01']},
        'numbers': [1, 2.5],
        'anything': [1, 'x'],
    }
    made = build(Outer, values)
    assert made == Outer('a', Inner(2, (1.0, 2.0)), {'train': ['01']}, (1.0, 2.5), [1, 'x'])
    assert type(made.inner.span[0]) is float


@pytest.mark.parametrize(
    ('values', 'said'),
    [
        ([], 'no mapping'),
        ({}, 'name is missing'),
        ({'name': 'a', 'iner': {}}, "'iner'; did you mean 'inner'"),
        ({'name': 'a', 'inner': {'sise': 1}}, "'inner.sise'; did you mean 'inner.size'"),
        ({'name': 'a', 'inner': 5}, 'inner is no mapping'),
        ({'name': 5}, 'name is 5, not a value of type str'),
        ({'name': 'a', 'inner': {'size': True}}, 'inner.size is True'),
        ({'name': 'a', 'inner': {'size': 1.0}}, 'inner.size is 1.0'),
        ({'name': 'a', 'inner': {'span': [1]}}, 'inner.span'),
        ({'name': 'a', 'inner': {'span': ['x', 'y']}}, "inner.span is 'x'"),
        ({'name': 'a', 'parts': {'train': '01'}}, "parts is '01'"),
        ({'name': 'a', 'numbers': [math.nan]}, 'numbers is nan'),
    ],
)
def test_what_does_not_fit_is_named(values, said):
    with pytest.raises(SerError) as refusal:
        build(Outer, values)
    assert said in str(refusal.value)
    assert '\n' not in str(refusal.value)

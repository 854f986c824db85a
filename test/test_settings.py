"""Dataclasses from plain values."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Optional, Union

import pytest

from ser_ros import SerError
from ser_ros.settings import from_dict


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
    gaps: tuple[Optional[float], ...] = ()


@dataclass(frozen=True)
class Circle:
    radius: float = 1.0
    kind: str = field(default='circle', init=False)


@dataclass(frozen=True)
class Square:
    side: float = 1.0
    kind: str = field(default='square', init=False)


@dataclass(frozen=True)
class Drawing:
    shape: Union[Circle, Square] = field(default_factory=Circle)


def test_a_kind_decides_between_dataclasses():
    assert from_dict(Drawing, {'shape': {'kind': 'square', 'side': 2}}) == Drawing(Square(2.0))
    assert from_dict(Drawing, {'shape': {'kind': 'circle', 'radius': 2}}) == Drawing(Circle(2.0))
    assert from_dict(Drawing, {'shape': {'radius': 2}}) == Drawing(Circle(2.0))
    assert from_dict(Union[Circle, Square], {'side': 2, 'kind': 'square'}) == Square(2.0)
    assert from_dict(Square, {'kind': 'square'}) == Square()
    drawing = Drawing(Square(3.0))
    assert from_dict(Drawing, asdict(drawing)) == drawing


@pytest.mark.parametrize(
    ('values', 'expected'),
    [
        ({'kind': 'sqare'}, "shape.kind is 'sqare'; did you mean 'square'?"),
        ({'kind': ['square']}, 'shape.kind'),
        ({'kind': 'square', 'radius': 1}, "unknown key 'shape.radius'"),
        ({'side': 1}, "unknown key 'shape.side'"),
        ({'kind': 'square', 'side': 'x'}, "shape.side is 'x'"),
        (5, 'shape is not a mapping'),
    ],
)
def test_values_of_no_kind_are_named(values, expected):
    with pytest.raises(SerError) as refusal:
        from_dict(Drawing, {'shape': values})
    assert expected in str(refusal.value)
    assert '\n' not in str(refusal.value)


def test_a_kind_cannot_be_another():
    with pytest.raises(SerError, match="kind is 'circle', not 'square'"):
        from_dict(Square, {'kind': 'circle'})


def test_values_get_the_types_of_the_fields():
    values = {
        'name': 'a',
        'inner': {'size': 2, 'span': [1, 2]},
        'parts': {'train': ['01']},
        'numbers': [1, 2.5],
        'anything': [1, 'x'],
        'gaps': [1, None],
    }
    made = from_dict(Outer, values)
    parts = {'train': ['01']}
    assert made == Outer('a', Inner(2, (1.0, 2.0)), parts, (1.0, 2.5), [1, 'x'], (1.0, None))
    assert type(made.inner.span[0]) is float


@pytest.mark.parametrize(
    ('values', 'expected'),
    [
        ([], 'not a mapping'),
        ({}, 'name is missing'),
        ({'name': 'a', 'iner': {}}, "'iner'; did you mean 'inner'"),
        ({'name': 'a', 'inner': {'sise': 1}}, "'inner.sise'; did you mean 'inner.size'"),
        ({'name': 'a', 'inner': 5}, 'inner is not a mapping'),
        ({'name': 5}, 'name is 5, not text: put it in quotes'),
        ({'name': 'a', 'inner': {'size': True}}, 'inner.size is True'),
        ({'name': 'a', 'inner': {'size': 1.0}}, 'inner.size is 1.0'),
        ({'name': 'a', 'inner': {'span': [1]}}, 'inner.span'),
        ({'name': 'a', 'inner': {'span': ['x', 'y']}}, "inner.span is 'x'"),
        ({'name': 'a', 'parts': {'train': '01'}}, "parts is '01'"),
        ({'name': 'a', 'parts': {1: ['01']}}, 'a key of parts is 1, not text: put it in quotes'),
        ({'name': 'a', 'numbers': [math.nan]}, 'numbers is nan'),
        ({'name': 'a', 'numbers': [None]}, 'numbers is None'),
        ({'name': 'a', 'gaps': [math.nan]}, 'gaps is nan'),
        ({'name': 'a', 'gaps': ['x']}, "gaps is 'x', not a value of type float"),
    ],
)
def test_values_of_a_wrong_type_are_named(values, expected):
    with pytest.raises(SerError) as refusal:
        from_dict(Outer, values)
    assert expected in str(refusal.value)
    assert '\n' not in str(refusal.value)

"""Dataclasses from the plain values of YAML and JSON, checked by type."""

import difflib
import itertools
import math
from dataclasses import MISSING, fields, is_dataclass
from types import UnionType
from typing import Any, Optional, TypeVar, Union, get_args, get_origin, get_type_hints

from ser_ros import SerError

T = TypeVar('T')


def from_dict(cls: type[T], values: Any, where: str = '') -> T:
    """Make a dataclass from `values`, each checked against the type of its field.

    In a union of dataclasses the constant `kind` chooses one; the first one is the default.
    SerError names the key (after `where`) that is missing, unknown or of the wrong type, and for
    an unknown key the nearest known one.
    """
    if not isinstance(values, dict):
        raise SerError(f'{where or cls.__name__} is not a mapping of keys to values')
    prefix = f'{where}.' if where else ''
    if _is_union_of_dataclasses(cls):
        cls = _pick(cls, values, prefix + 'kind')
    names = [field.name for field in fields(cls)]
    for key in values:
        if key not in names:
            raise SerError(
                f'unknown key {prefix + str(key)!r}; did you mean {prefix + _nearest(key, names)!r}?'
            )
    required = [f.name for f in fields(cls) if f.default is f.default_factory is MISSING]
    if missing := [prefix + name for name in required if name not in values]:
        raise SerError(f'{", ".join(missing)} is missing')
    constants = {field.name: field.default for field in fields(cls) if not field.init}
    for key, constant in constants.items():
        if (value := values.get(key, constant)) != constant:
            raise SerError(f'{prefix + key} is {value!r}, not {constant!r}')
    kinds = get_type_hints(cls)
    return cls(
        **{
            key: _convert(kinds[key], value, prefix + key)
            for key, value in values.items()
            if key not in constants
        }
    )


def _is_union_of_dataclasses(kind: Any) -> bool:
    return get_origin(kind) in (Union, UnionType) and all(map(is_dataclass, get_args(kind)))


def _pick(union: Any, values: dict, where: str) -> type:
    """The dataclass that `kind` in `values` chooses."""
    members = get_args(union)
    names = [member.kind for member in members]
    kind = values.get('kind', names[0])
    if kind not in names:
        raise SerError(f'{where} is {kind!r}; did you mean {_nearest(kind, names)!r}?')
    return members[names.index(kind)]


def _nearest(name: Any, known: list[str]) -> str:
    return difflib.get_close_matches(str(name), known, 1, cutoff=0.0)[0]


def _convert(kind: Any, value: Any, where: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if type(None) in arguments:
        if value is None:
            return None
        (kind,) = (argument for argument in arguments if argument is not type(None))
        return _convert(kind, value, where)
    if is_dataclass(kind) or _is_union_of_dataclasses(kind):
        return from_dict(kind, value, where)
    if origin in (list, tuple) and isinstance(value, (list, tuple)):
        kinds = _kinds_of_items(origin, arguments, len(value))
        if kinds is not None:
            return origin(_convert(k, v, where) for k, v in zip(kinds, value))
    elif origin is dict and isinstance(value, dict):
        kind_of_key, kind_of_item = arguments
        return {
            _convert(kind_of_key, key, f'a key of {where}'): _convert(kind_of_item, item, where)
            for key, item in value.items()
        }
    elif kind is float and type(value) in (int, float) and -math.inf < value < math.inf:
        return float(value)
    elif kind is Any or (type(value) is kind and kind is not float):
        return value
    if kind is str:
        raise SerError(f'{where} is {value!r}, not text: put it in quotes')
    name = kind.__name__ if isinstance(kind, type) and origin is None else str(kind)
    raise SerError(f'{where} is {value!r}, not a value of type {name}')


def _kinds_of_items(origin: type, arguments: tuple, n: int) -> Optional[list]:
    """The types of `n` items of a list or tuple; None if it cannot have `n` items."""
    if origin is list or arguments[-1] is ...:
        return list(itertools.repeat(arguments[0], n))
    return list(arguments) if len(arguments) == n else None

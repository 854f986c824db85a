"""Dataclasses from the plain values that YAML and JSON give."""

import difflib
import itertools
import math
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Optional, TypeVar, get_args, get_origin, get_type_hints

from ser_ros import SerError

T = TypeVar('T')


def build(cls: type[T], values: Any, where: str = '') -> T:
    """Make a dataclass of `values`, each checked against the type of its field.

    SerError names the key (behind `where`) that is missing, unknown or of the wrong type; an
    unknown one comes with the nearest known.
    """
    if not isinstance(values, dict):
        raise SerError(f'{where or cls.__name__} is no mapping of keys to values')
    prefix = f'{where}.' if where else ''
    names = [field.name for field in fields(cls)]
    for key in values:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, 1, cutoff=0.0)[0]
            raise SerError(f'unknown key {prefix + str(key)!r}; did you mean {prefix + near!r}?')
    required = [f.name for f in fields(cls) if f.default is f.default_factory is MISSING]
    if missing := [prefix + name for name in required if name not in values]:
        raise SerError(f'{", ".join(missing)} is missing')
    kinds = get_type_hints(cls)
    return cls(**{key: _convert(kinds[key], value, prefix + key) for key, value in values.items()})


def _convert(kind: Any, value: Any, where: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return build(kind, value, where)
    if origin in (list, tuple) and isinstance(value, (list, tuple)):
        kinds = _kinds_of_items(origin, arguments, len(value))
        if kinds is not None:
            return origin(_convert(k, v, where) for k, v in zip(kinds, value))
    elif origin is dict and isinstance(value, dict):
        return {key: _convert(arguments[1], item, where) for key, item in value.items()}
    elif kind is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    elif kind is Any or (type(value) is kind and kind is not float):
        return value
    name = kind.__name__ if isinstance(kind, type) and origin is None else str(kind)
    raise SerError(f'{where} is {value!r}, not a value of type {name}')


def _kinds_of_items(origin: type, arguments: tuple, n: int) -> Optional[list]:
    """The types of `n` items of a list or tuple; None where it has another number of them."""
    if origin is list or arguments[-1] is ...:
        return list(itertools.repeat(arguments[0], n))
    return list(arguments) if len(arguments) == n else None

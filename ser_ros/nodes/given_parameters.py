"""Parameters as a user gives them: numbers of the other kind, misspelt names. No rclpy here."""

import difflib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

import yaml

from ser_ros.nodes.parameters import CAPTURE, EMOTION, VIEW

NODES = ('emotion_node', 'audio_capture_node', 'view_node')
NEAR = 0.7
"""Similarity (difflib) from which on another node's name is perhaps meant to be this one's."""
OF_ROS = re.compile(r'use_sim_time|start_type_description_service|qos_overrides\..*')
"""Parameters that rclpy declares itself, some of them later."""


def as_declared(value: Any, default: Any) -> Any:
    """A number in the type of its default: YAML's 1 for 1.0, and 16000.0 for 16000.

    YAML also reads off, which is a word here, as false, and ROS an empty list as nothing.
    """
    if type(default) is list and not value:
        return default
    if type(default) is float and type(value) is int:
        return float(value)
    if type(default) is int and type(value) is float and value.is_integer():
        return int(value)
    if type(default) is str and value is False:
        return 'off'
    return value


def unknown_parameters(given: Iterable[str], known: Sequence[str]) -> list[str]:
    """A sentence for each name that was given and that no node has, with the nearest known."""
    of_all = {spec.name for spec in (*CAPTURE, *EMOTION, *VIEW)}
    return [
        f'parameter {name!r} is unknown and ignored; did you mean '
        f'{difflib.get_close_matches(name, known, 1, cutoff=0.0)[0]!r}?'
        for name in given
        if name not in of_all and not OF_ROS.fullmatch(name)
    ]


def unused_keys(arguments: Sequence[str], full_name: str) -> list[str]:
    """A sentence for each key that is perhaps meant for the node, and that does not match it.

    `arguments`: of the command line, with parameter files and parameters. A file that names the
    node rightly may have keys for nodes with similar names.
    """
    sentences = []
    for option, value in itertools.pairwise(arguments):
        if option == '--params-file':
            keys = list(_keys_of(Path(value)))
            if not any(_matches(key, full_name) and not _is_wild(key) for key in keys):
                sentences += [s for key in keys if (s := _doubt(key, full_name, value))]
        elif option in ('-p', '--param') and (match := re.match(r'([^:]+):[^:]+:=', value)):
            key = match[1]
            if not _matches(key, full_name) and (s := _doubt(key, full_name, value)):
                sentences.append(s)
    return sentences


def _keys_of(path: Path) -> Iterator[str]:
    """The names of nodes in a parameter file; rcl has read it already, and reported errors."""
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return
    yield from _walk(values, '')


def _walk(values: Any, prefix: str) -> Iterator[str]:
    if not isinstance(values, Mapping):
        return
    for key, value in values.items():
        if key == 'ros__parameters':
            yield prefix
        else:
            yield from _walk(value, f'{prefix}/{str(key).strip("/")}')


def _is_wild(key: str) -> bool:
    return key.rpartition('/')[2] in ('*', '**')


def _matches(key: str, full_name: str) -> bool:
    """As rcl does it: * is one part of a name, ** any number of them."""
    parts = {'**': '(/[^/]+)*', '*': '/[^/]+'}
    pattern = ''.join(parts.get(p, '/' + re.escape(p)) for p in key.strip('/').split('/'))
    return re.fullmatch(pattern, full_name) is not None


def _doubt(key: str, full_name: str, where: str) -> Optional[str]:
    """A sentence where a key that does not match the node may be meant for it."""
    name, own = key.rpartition('/')[2], full_name.rpartition('/')[2]
    if _is_wild(key) or _matches(key, full_name):
        return None
    near = difflib.get_close_matches(name, {own, *NODES}, 1, cutoff=NEAR)
    if near != [own]:
        return None
    return (
        f'{where}: {key!r} does not match this node, {full_name}, so that its parameters are '
        f"ignored; did you mean '/**/{own}'?"
    )

"""The page in Markdown, and the numbers in JSON."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from measure import Row
from targets import Results

Comparisons = Sequence[Mapping[str, Any]]
"""Of `targets.compare`."""


def page(
    results: Results,
    comparisons: Comparisons,
    where: Mapping[str, Any],
    descriptions: Mapping[str, str],
) -> str:
    """Targets, then a table for each part. `descriptions`: part → what it measures."""
    return (
        '\n'.join([*_head(where), *_targets(comparisons), *_parts(results, descriptions)]) + '\n'
    )


def numbers(
    results: Results, comparisons: Comparisons, where: Mapping[str, Any]
) -> dict[str, Any]:
    """The same for JSON; what was not measured is null."""
    return {
        'machine': dict(where),
        'targets': [dict(target) for target in comparisons],
        **{part: [_values(row) for row in rows] for part, rows in results.items()},
    }


def _head(where: Mapping[str, Any]) -> Iterator[str]:
    yield '# Performance'
    yield ''
    yield (
        f'{where["processor"]}, {where["cores"]} cores{where["gpu"] and ", " + where["gpu"]}, Python '
        f'{where["python"]}; bundle {where["bundle"]} ({where["architecture"]}); commit '
        f'{where["commit"]}, {where["date"]}. Made by `make bench`: medians, in brackets the middle '
        'half of the values. Where processes are not measured in real time, alternatives take turns, '
        'and times on the CPU are processor times.'
    )


def _targets(comparisons: Comparisons) -> Iterator[str]:
    yield from ('', '## Targets', '')
    rows = [
        (
            target['metric'],
            '–' if target['measured'] is None else _number(target['measured'], target['unit']),
            _number(target['at_least'], target['unit']),
            _number(target['aim'], target['unit']),
            target['verdict'],
        )
        for target in comparisons
    ]
    yield from _table(('metric', 'measured', 'at least', 'aim', ''), rows)
    if bounds := [target for target in comparisons if target['bound']]:
        yield from ('', 'What bounds the metrics that are missed, from profiles:', '')
        yield from (f'- {target["metric"]}: {target["bound"]}' for target in bounds)


def _parts(results: Results, descriptions: Mapping[str, str]) -> Iterator[str]:
    for part, rows in results.items():
        if not rows:
            continue
        yield from ('', f'## {part.capitalize()}', '', descriptions[part], '')
        optional = {
            'relative to the first': lambda row: f'{row.ratio:.3g} ×' if row.ratio else '',
            'note': lambda row: row.note,
        }
        columns = {
            'what': lambda row: row.what,
            'median': _cell,
            **{name: cell for name, cell in optional.items() if any(map(cell, rows))},
        }
        yield from _table(columns, [[cell(row) for cell in columns.values()] for row in rows])


def _cell(row: Row) -> str:
    if not len(row.values):
        return '–'
    low, middle, high = row.quartiles
    spread = f' [{low:.3g}, {high:.3g}]' if len(row.values) > 1 else ''
    return _number(middle, row.unit) + spread


def _number(value: float, unit: str) -> str:
    text = f'{value:,.0f}' if value >= 1_000 else f'{value:.3g}'
    return f'{text} {unit}'


def _table(header: Any, rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f'| {" | ".join(header)} |'
    yield '|---' * len(header) + '|'
    for row in rows:
        yield f'| {" | ".join(cell.replace("|", "/") for cell in row)} |'


def _values(row: Row) -> dict[str, Any]:
    low, middle, high = row.quartiles if len(row.values) else (None,) * 3
    values = {
        'what': row.what,
        'unit': row.unit,
        'median': middle,
        'low': low,
        'high': high,
        'n': len(row.values),
        'ratio': row.ratio,
        'note': row.note,
    }
    return {key: value for key, value in values.items() if key in ('median', 'n') or value}

"""The documentation's pages, and the tables and code blocks in them."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / 'docs'
PAGES = (ROOT / 'README.md', *sorted(DOCS.glob('*.md')))


def table(page, *header, after=''):
    """The rows of the first table with this header, below a line of text; empty cells are filled.

    An empty first cell means that the row belongs to the one above it.
    """
    lines = (DOCS / page).read_text().partition(after)[2] if after else (DOCS / page).read_text()
    lines = iter(lines.splitlines())
    assert any(_cells(line) == list(header) for line in lines), f'{page} has no table {header}'
    next(lines)
    rows = []
    for line in lines:
        if not line.startswith('|'):
            break
        cells = _cells(line)
        rows.append([cells[0] or rows[-1][0], *cells[1:]])
    return rows


def _cells(line):
    return [cell.strip() for cell in line.strip().strip('|').split('|')]


def names_in(cell):
    """What a cell has between backticks."""
    return re.findall(r'`([^`]+)`', cell)


def code_blocks(page, language):
    """The code blocks of a language in a page."""
    pattern = rf'^( *)```{language}\n(.*?)^\1```'
    text = page.read_text()
    return [
        re.sub(rf'^{match[1]}', '', match[2], flags=re.MULTILINE)
        for match in re.finditer(pattern, text, re.DOTALL | re.MULTILINE)
    ]

"""The manual agrees with the code; nothing here needs ROS."""

import contextlib
import dataclasses
import io
import re
import shlex

import pytest
import yaml
from pages import DOCS, PAGES, ROOT, code_blocks, names_in, table

from ser_ros.__main__ import _parser
from ser_ros.audio.formats import RAW_CODINGS, SAMPLE_FORMATS
from ser_ros.bundle import load_bundle
from ser_ros.bundle_info import FORMAT, FORMAT_VERSION, PROGRAMS, BundleInfo
from ser_ros.emotions import EMOTIONS, LABELS
from ser_ros.nodes import parameters
from ser_ros.shipped import shipped_recipes
from ser_ros.stream.enrolment import Enrolment
from ser_ros.training.data.naming import NAMINGS
from ser_ros.training.data.splits import FOLDS
from ser_ros.training.recipe import Recipe
from ser_ros.training.reports.formatting import with_interval
from ser_ros.training.reports.left_out import HEADER as LEFT_OUT_HEADER
from ser_ros.training.reports.left_out import read_summaries
from ser_ros.training.reports.left_out import rows as left_out_rows
from ser_ros.training.reports.results import FoldResult

PARAMETERS = {
    'audio_capture_node': parameters.CAPTURE,
    'emotion_node': parameters.EMOTION,
    'view_node': parameters.VIEW,
}


def ids(pages):
    return [page.name for page in pages]


# Links and paths.


@pytest.mark.parametrize('page', PAGES, ids=ids(PAGES))
def test_every_relative_link_leads_somewhere(page):
    for target in re.findall(r'\]\(([^)\s]+)\)', page.read_text()):
        if target.startswith(('https://', 'http://')):
            continue
        path, _, anchor = target.partition('#')
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f'{page.name}: {target}'
        assert linked.is_relative_to(ROOT)
        if anchor:
            titles = re.findall(r'^#+ (.*)', linked.read_text(), re.MULTILINE)
            anchors = {re.sub(r'[^\w -]', '', t.lower()).replace(' ', '-') for t in titles}
            assert anchor in anchors, f'{page.name}: {target}'


@pytest.mark.parametrize('page', PAGES, ids=ids(PAGES))
def test_every_path_in_the_checkout_exists(page):
    folders = 'ser_ros|config|launch|test|tools|examples|bundles|docs|benchmarks'
    for path in re.findall(rf'`((?:{folders})/[\w./]+)`', page.read_text()):
        assert (ROOT / path).exists(), f'{page.name}: {path}'


def test_the_contents_name_every_page():
    listed = {cell for row in table('README.md', 'page', 'read it to') for cell in row[:1]}
    targets = {re.search(r'\((.*)\)', cell)[1] for cell in listed}
    assert targets >= {page.name for page in DOCS.glob('*.md')} - {'README.md'}


def test_the_readme_is_short():
    assert len((ROOT / 'README.md').read_text().splitlines()) <= 150
    for name in ('inspect.png', 'view.png'):
        assert (DOCS / 'images' / name).stat().st_size < 200_000


def test_the_page_that_an_error_refers_to_has_its_remedy():
    named = re.search(r'docs/\w+\.md', (ROOT / 'ser_ros/nodes/entry.py').read_text())[0]
    assert "No module named 'onnxruntime'" in (ROOT / named).read_text()


# Commands.


def command_lines(page, start):
    for block in code_blocks(page, 'sh'):
        for line in block.replace('\\\n', ' ').splitlines():
            if line.strip().startswith(start):
                yield line.strip().removeprefix(start)


@pytest.mark.parametrize('page', PAGES, ids=ids(PAGES))
def test_every_command_line_is_understood(page):
    for start in ('python -m ser_ros', 'ros2 run ser_ros ser_ros'):
        for line in command_lines(page, start):
            arguments = shlex.split(line, comments=True)
            if arguments != ['--help']:
                with contextlib.redirect_stderr(io.StringIO()) as said:
                    try:
                        _parser().parse_args(arguments)
                    except SystemExit:
                        pytest.fail(f'{page.name}: {line}: {said.getvalue()}')


def test_every_launch_argument_exists():
    launch = (ROOT / 'launch' / 'ser.launch.py').read_text()
    known = set(re.findall(r"DeclareLaunchArgument\(\s*'(\w+)'", launch))
    used = {name for page in PAGES for name in re.findall(r'(\w+):=', page.read_text())}
    assert {'microphone', 'publish_audio'} <= used <= known


def test_every_make_target_exists():
    known = set(re.findall(r'^(\w+):', (ROOT / 'Makefile').read_text(), re.MULTILINE))
    used = {
        name
        for page in PAGES
        for name in re.findall(r'(?:^|`)make (\w+)', page.read_text(), re.MULTILINE)
    }
    assert {'demo', 'test'} <= used <= known
    assert used | {'help'} == known


def test_every_service_of_the_emotion_node_is_described():
    source = (ROOT / 'ser_ros/nodes/emotion_node.py').read_text()
    created = set(re.findall(r"create_service\(\s*(\w+),\s*'([~/\w]+)'", source))
    rows = table('nodes.md', 'service', 'type', 'effect')
    listed = {(row[1].strip('`').rpartition('/')[2], row[0].strip('`')) for row in rows}
    assert listed == created


def test_every_service_that_is_called_exists():
    created = {
        row[0].strip('`').rpartition('/')[2]
        for row in table('nodes.md', 'service', 'type', 'effect')
    }
    called = {
        name for page in PAGES for name in re.findall(r'service call \S*/(\w+)', page.read_text())
    }
    assert {'enable'} <= called <= created


@pytest.mark.parametrize(
    'page', [ROOT / 'README.md', DOCS / 'python.md', DOCS / 'file_formats.md']
)
def test_the_python_examples_run(page, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    for code in code_blocks(page, 'python'):
        if 'rclpy' not in code:
            exec(code, {})
            assert capsys.readouterr().out


# Tables.


def spaced(text):
    """Percentages as the README writes them."""
    return text.replace('%', ' %')


def test_the_readme_has_the_metrics_of_the_bundle():
    own = load_bundle().info.metrics['test']['groups']['corpus']
    expected = {name: [with_interval(metrics)] + 3 * ['–'] for name, metrics in own.items()}
    for row in left_out_rows([s.results for s in read_summaries(DOCS / 'results' / 'companion')]):
        named = dict(zip(LEFT_OUT_HEADER, row))
        cells = (
            named['UA [95 %], unknown voice'],
            named['UA [95 %], known voice'].partition(' (')[0],
            named['right when decided'],
        )
        name = named['corpus left out'].strip('*')
        expected[name] = [*expected.get(name, ['–'])[:1], *cells]
    header = ('unknown voice', 'after ten utterances', 'right when it decides')
    rows = table('../README.md', 'corpus', 'test speakers', *(f'left out, {h}' for h in header))
    assert {row[0].partition(' ')[0]: row[1:] for row in rows} == {
        name: [cell.replace('%', ' %') for cell in cells] for name, cells in expected.items()
    }


def test_the_parameters_are_those_of_the_code():
    listed = {name: {} for name in PARAMETERS}
    for node, name, default, _ in table('nodes.md', 'node', 'parameter', 'default', 'meaning'):
        for each in PARAMETERS if node == 'all' else [node]:
            value = yaml.safe_load(default.strip('`'))
            listed[each][name.strip('` *')] = (value, name.endswith('*'))
    for node, specs in PARAMETERS.items():
        assert listed[node] == {spec.name: (spec.default, spec.is_live) for spec in specs}


def test_the_stars_in_the_parameter_file_are_those_of_the_code():
    text = (ROOT / 'config' / 'ser.yaml').read_text()
    for node, specs in PARAMETERS.items():
        section = text.partition(f'/**/{node}:')[2].partition('\n/**/')[0]
        starred = set(re.findall(r'^ +(\w+):.*# \*', section, re.MULTILINE))
        assert starred == {spec.name for spec in specs if spec.is_live}


def test_the_formats_are_those_of_the_code():
    rows = dict(table('other_audio.md', 'field of `AudioInfo`', 'accepted'))
    assert names_in(rows['`sample_format`']) == list(SAMPLE_FORMATS)
    assert set(names_in(rows['`coding_format`'])) | {''} == set(RAW_CODINGS)


def test_the_corpora_are_those_of_the_code():
    rows = table('training.md', 'corpus', 'a file name', 'classes', 'published folds')
    assert [row[0].partition(' ')[0] for row in rows] == list(NAMINGS)
    for name, example, n_classes, folds in rows:
        name = name.partition(' ')[0]
        assert names_in(example)[0] == NAMINGS[name].example
        assert int(n_classes) == len(set(LABELS[name].values()))
        assert folds.split(' ')[0] == (str(len(FOLDS[name])) if name in FOLDS else '–')
    emotion = dict(table('file_formats.md', 'column', 'meaning'))['`emotion`']
    assert names_in(emotion)[: len(EMOTIONS)] == list(EMOTIONS)


def test_the_recipes_named_are_shipped():
    used = {
        _parser().parse_args(arguments).recipe
        for page in PAGES
        for line in command_lines(page, 'python -m ser_ros')
        if (arguments := shlex.split(line, comments=True))[0] in ('train', 'cross-validate')
    }
    assert used - {'mine.yaml', None} <= set(shipped_recipes())


def keys_of(after):
    header = ('key', 'what it sets' if 'Recipes' in after else 'meaning')
    return [row[0].strip('`') for row in table('file_formats.md', *header, after=after)]


def fields_of(cls):
    return [field.name for field in dataclasses.fields(cls)]


def test_the_keys_of_files_are_those_of_the_code():
    assert keys_of('## Bundles') == ['format', 'format_version', PROGRAMS, *fields_of(BundleInfo)]
    assert keys_of('## Enrolments') == fields_of(Enrolment)
    assert keys_of('## Recipes') == [n for n in fields_of(Recipe) if n != 'name']
    assert keys_of('## Results') == fields_of(FoldResult)
    rows = dict(table('file_formats.md', 'key', 'meaning'))
    assert rows['`format`'] == f'`{FORMAT}`'
    assert names_in(rows['`format_version`']) == [str(FORMAT_VERSION)]

"""Imports run one way, and the light parts stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / 'ser_ros'

# What each part may import of this package; SerError and the constants are everybody's.
ALLOWED = {
    '__init__': set(),
    'emotions': set(),
    'files': set(),
    'shipped': set(),
    'settings': set(),
    'audio': {'files'},
    'frontend_config': set(),
    'bundle_info': {'audio', 'emotions', 'files', 'frontend_config', 'settings', 'shipped'},
    'programs': {'bundle_info', 'settings'},
    'speech_encoder': {'shipped'},
    'features': {'frontend_config', 'speech_encoder'},
    'models': set(),
    'bundle': {
        'bundle_info',
        'emotions',
        'features',
        'files',
        'frontend_config',
        'models',
        'programs',
    },
    'stream': {'audio', 'bundle', 'bundle_info', 'emotions', 'files', 'programs', 'settings'},
    'export': {'audio', 'bundle', 'programs', 'shipped', 'stream'},
    'workers': set(),
    'cluster': {'workers'},
    'journal': {'workers'},
    'machine': set(),
    'backends': {'bundle', 'export', 'stream'},
    'view': {'audio', 'emotions', 'files', 'stream'},
    'nodes': {'audio', 'backends', 'emotions', 'shipped', 'stream', 'view'},
}
ALLOWED['training'] = set(ALLOWED) - {'nodes', 'view'}
ALLOWED['commands'] = set(ALLOWED) - {'nodes'}
ALLOWED['__main__'] = {'commands'}
TRAINING_ONLY = {
    'jinja2',
    'librosa',
    'lightning',
    'matplotlib',
    'pandas',
    'pyroomacoustics',
    'scipy',
    'tensorboard',
    'torchmetrics',
}
EXPORT_ONLY = {'onnx', 'onnx_ir', 'onnxscript'}
VIEW_ONLY = {'aiohttp', 'foxglove', 'rosbags'}
# The same inside training.
ALLOWED_IN_TRAINING = {
    'labels': set(),
    'recipe': {'labels'},
    'attempts': set(),
    'data': {'labels', 'recipe'},
    'learning': {'data', 'recipe'},
    'evaluation': {'data', 'recipe'},
    'reports': {'data', 'evaluation', 'recipe'},
    'adjustment': {'data', 'recipe'},
    'finetuning': {'adjustment', 'data', 'recipe'},
    'run': {'adjustment', 'data', 'evaluation', 'finetuning', 'learning', 'recipe'},
}
ALLOWED_IN_TRAINING['left_out'] = set(ALLOWED_IN_TRAINING)
ALLOWED_IN_TRAINING['cross_validation'] = set(ALLOWED_IN_TRAINING) - {'left_out'}
ALLOWED_IN_TRAINING['learning_curve'] = set(ALLOWED_IN_TRAINING) - {'left_out', 'cross_validation'}
REPORTS_ONLY = {'jinja2', 'librosa', 'matplotlib'}


def part_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix('.py')


def modules_in(tree):
    """Names of the modules that the statements below `tree` import, wherever they stand."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'line {node.lineno}: a relative import hides where it goes'
            yield from (f'{node.module}.{alias.name}' for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == 'importlib.import_module':
            yield from (a.value for a in node.args if isinstance(a, ast.Constant))


def is_ros(module):
    package = module.split('.')[0]
    return package.startswith('rcl') or package.endswith(('_msgs', '_srvs', '_interfaces'))


FILES = [
    pytest.param(path, id=str(path.relative_to(PACKAGE))) for path in sorted(PACKAGE.rglob('*.py'))
]


def test_every_part_has_a_rule():
    assert {part_of(path) for path in PACKAGE.rglob('*.py')} == set(ALLOWED)


@pytest.mark.parametrize('path', FILES)
def test_imports_run_one_way(path):
    part = part_of(path)
    parts = {path.stem if path.is_file() else path.name for path in PACKAGE.iterdir()}
    inside = {
        module.split('.')[1]
        for module in modules_in(ast.parse(path.read_text()))
        if module.startswith('ser_ros.')
    }
    assert (inside & parts) - {part} <= ALLOWED[part]


TRAINING_FILES = [
    pytest.param(path, id=str(path.relative_to(PACKAGE / 'training')))
    for path in sorted((PACKAGE / 'training').rglob('*.py'))
    if path != PACKAGE / 'training' / '__init__.py'
]


@pytest.mark.parametrize('path', TRAINING_FILES)
def test_imports_inside_training_run_one_way(path):
    part = path.relative_to(PACKAGE / 'training').parts[0].removesuffix('.py')
    modules = set(modules_in(ast.parse(path.read_text())))
    inside = {m.split('.')[2] for m in modules if m.startswith('ser_ros.training.')}
    assert inside - {part} <= ALLOWED_IN_TRAINING[part]
    if part != 'reports':
        assert not {module for module in modules if module.split('.')[0] in REPORTS_ONLY}


@pytest.mark.parametrize('path', FILES)
def test_foreign_packages_stay_in_their_parts(path):
    modules = set(modules_in(ast.parse(path.read_text())))
    part = part_of(path)
    if part != 'nodes':
        assert not {module for module in modules if is_ros(module)}
    if part != 'training':
        assert not {module for module in modules if module.split('.')[0] in TRAINING_ONLY}
    if part != 'view':
        assert not {module for module in modules if module.split('.')[0] in VIEW_ONLY}
    if part != 'export':
        assert not {module for module in modules if module.split('.')[0] in EXPORT_ONLY}


@pytest.mark.parametrize('path', FILES)
def test_sounddevice_waits_for_a_microphone(path):
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.body = [ast.Pass()]
    assert 'sounddevice' not in {module.split('.')[0] for module in modules_in(tree)}


def run_python(code):
    return subprocess.run(
        [sys.executable, '-c', code],
        check=True,
        capture_output=True,
        text=True,
        cwd=PACKAGE.parent,
    ).stdout.split()


def test_the_package_alone_is_light():
    loaded = run_python("import ser_ros, sys; print(*{m.split('.')[0] for m in sys.modules})")
    assert not {'torch', 'numpy', 'scipy', 'yaml', 'soundfile'} & set(loaded)


def test_a_robot_loads_nothing_of_training_nor_a_workstation_of_ros():
    loaded = run_python(
        'import sys; '
        'import ser_ros.__main__, ser_ros.stream.recognizer, ser_ros.audio.microphone, ser_ros.audio.block_queue; '
        'ser_ros.stream.voice.SileroVad(); '
        "print(*{m.split('.')[0] for m in sys.modules})"
    )
    assert 'onnxruntime' in loaded
    # Importing it sets torch's threads to one for the whole process.
    assert 'silero_vad' not in loaded
    assert not (TRAINING_ONLY | EXPORT_ONLY | VIEW_ONLY | {'sounddevice'}) & set(loaded)
    assert not {module for module in loaded if is_ros(module)}


def test_a_stream_without_torch():
    loaded = run_python(
        'import sys\n'
        'from ser_ros.backends import load_backend\n'
        'from ser_ros.stream.recognizer import Recognizer\n'
        'from ser_ros.audio.sources import read_audio\n'
        "recognizer = Recognizer(load_backend(backend='onnx'))\n"
        "estimates = recognizer.push(read_audio('examples/demo.flac'), 0) + recognizer.flush()\n"
        'assert len([e for e in estimates if e.is_final]) == 6\n'
        "print(*{m.split('.')[0] for m in sys.modules})"
    )
    assert 'onnxruntime' in loaded
    assert not {'torch', 'torchaudio', 'scipy'} & set(loaded)


def test_a_training_loads_nothing_of_the_reports():
    """But for what Lightning itself loads: torchmetrics imports matplotlib and librosa."""
    loaded = run_python(
        'import sys, lightning\n'
        f'loaded = [m for m in sys.modules if m.split(".")[0] in {REPORTS_ONLY}]\n'
        'for name in loaded: del sys.modules[name]\n'
        'import ser_ros.training.run\n'
        "print(*{m.split('.')[0] for m in sys.modules}, *(m for m in sys.modules if 'reports' in m))"
    )
    assert 'ser_ros' in loaded
    assert not (REPORTS_ONLY | {'ser_ros.training.reports'}) & set(loaded)

"""Exported programs agree with the bundle for any length and number of clips."""

import json
import math
import zipfile

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from ser_ros import SerError, export
from ser_ros.__main__ import main
from ser_ros.bundle import load_bundle
from ser_ros.export import METADATA, TOLERANCE, export_bundle, min_samples
from ser_ros.frontend_config import MfccConfig


@pytest.fixture(scope='module')
def small(write_bundle, tmp_path_factory):
    """An untrained bundle with deltas, and its exported programs."""
    folder = tmp_path_factory.mktemp('small')
    path = write_bundle(
        folder / 'small.safetensors',
        architecture='perceptron',
        hyperparameters={},
        frontend=MfccConfig(n_mels=40, n_mfcc=16, deltas=1),
    )
    bundle = load_bundle(path)
    return bundle, folder / 'new' / 'v1.2', export_bundle(bundle, folder / 'new' / 'v1.2')


@pytest.fixture(scope='module')
def shipped(tmp_path_factory):
    folder = tmp_path_factory.mktemp('shipped')
    assert main(['export', '--out', str(folder / 'shipped.onnx')]) == 0
    return load_bundle(), folder / 'shipped'


def with_suffix(path, suffix):
    return path.with_name(path.name + suffix)


def load_onnx(path):
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    return lambda waveform: torch.from_numpy(session.run(None, {'waveform': waveform.numpy()})[0])


def load_torch(path):
    return torch.export.load(path).module()


def assert_same(bundle, out, speech):
    """For three lengths and one or two clips, louder and quieter than those that export checks."""
    programs = [load_onnx(with_suffix(out, '.onnx')), load_torch(with_suffix(out, '.pt2'))]
    for n in (min_samples(bundle), 31_111, len(speech)):
        waveform = torch.from_numpy(np.stack((3 * speech[-n:], 0.01 * speech[-n:])))
        for batch in (waveform, waveform[:1]):
            expected = bundle.log_probabilities(bundle.frontend(batch)).exp()
            assert expected.log().std() > 0.1
            for program in programs:
                found = program(batch).exp()
                torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)


def test_a_bundle_with_deltas(small, speech):
    bundle, out, differences = small
    assert set(differences) == {with_suffix(out, '.onnx'), with_suffix(out, '.pt2')}
    assert all(difference <= TOLERANCE for difference in differences.values())
    assert {path.name for path in out.parent.iterdir()} == {'v1.2.onnx', 'v1.2.pt2'}
    assert_same(bundle, out, speech)


def test_the_shipped_bundle(shipped, speech):
    bundle, out = shipped
    assert {path.name for path in out.parent.iterdir()} == {'shipped.onnx', 'shipped.pt2'}
    assert_same(bundle, out, speech)


def test_a_program_has_metadata(small):
    bundle, out, _ = small
    extra = {METADATA: ''}
    torch.export.load(with_suffix(out, '.pt2'), extra_files=extra)
    metadata = json.loads(extra[METADATA])
    assert metadata == {
        'class_names': list(bundle.info.class_names),
        'sample_rate': 16_000,
        'min_samples': min_samples(bundle),
        'window': 3.0,
        'threshold': 0.25,
        'architecture': 'perceptron',
        'corpora': ['RAVDESS'],
        'license': 'CC-BY-NC-SA-4.0',
    }
    model = onnx.load(with_suffix(out, '.onnx'))
    onnx.checker.check_model(model, full_check=True)
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert properties['license'] == metadata['license']
    assert json.loads(properties['class_names']) == metadata['class_names']
    assert json.loads(properties['sample_rate']) == 16_000
    assert json.loads(properties['threshold']) == 0.25


def test_no_program_names_a_source_file(small, shipped, root):
    """The exporters note where each operation stands, in files of whoever exports."""
    bundles = sorted(root.glob('bundles/*.safetensors'))
    assert bundles
    for path in (*small[1].parent.iterdir(), *shipped[1].parent.iterdir(), *bundles):
        content = path.read_bytes()
        if path.suffix == '.pt2':
            with zipfile.ZipFile(path) as archive:
                content = b''.join(map(archive.read, archive.namelist()))
        assert b'/export.py' not in content
        assert b'site-packages' not in content


def test_a_clip_shorter_than_the_least_is_refused(small):
    bundle, out, _ = small
    with pytest.raises(AssertionError, match='waveform'):
        load_torch(with_suffix(out, '.pt2'))(torch.zeros(1, min_samples(bundle) - 1))


@pytest.mark.parametrize('value', [0.0, math.nan])
def test_a_program_that_differs_is_not_written(bundle, tmp_path, monkeypatch, value):
    def export_another(bundle):
        class Another(torch.nn.Module):
            def forward(self, waveform):
                return torch.full((waveform.shape[0], 8), value) + 0 * waveform[:, :1]

        shape = {0: torch.export.Dim('batch', min=1), 1: torch.export.Dim('samples', min=1)}
        return torch.export.export(Another(), (torch.zeros(3, 99),), dynamic_shapes=(shape,))

    monkeypatch.setattr(export, '_export', export_another)
    with pytest.raises(SerError) as refusal:
        export_bundle(bundle, tmp_path / 'other', ['torch'])
    assert str(tmp_path / 'other.pt2') in str(refusal.value)
    assert f'is not within {TOLERANCE:g}' in str(refusal.value)
    assert '\n' not in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / 'file').touch()
    files = {tmp_path / 'good.onnx': b'1', tmp_path / 'file' / 'bad.pt2': b'2'}
    with pytest.raises(SerError, match='bad.pt2') as refusal:
        export._write(files)
    assert '\n' not in str(refusal.value)
    assert [path.name for path in tmp_path.iterdir()] == ['file']


def test_a_folder_where_a_file_should_be(tmp_path):
    (tmp_path / 'a.pt2').mkdir()
    with pytest.raises(SerError, match='a.pt2 is a folder'):
        export._write({tmp_path / 'a.onnx': b'1', tmp_path / 'a.pt2': b'2'})
    assert [path.name for path in tmp_path.iterdir()] == ['a.pt2']


def test_a_missing_bundle(tmp_path, capsys):
    assert main(['export', str(tmp_path / 'missing.safetensors')]) == 1
    assert 'no such file' in capsys.readouterr().err


def test_export_checks_many_sounds(bundle):
    sounds = list(export._sounds(bundle.min_samples, 16_000))
    assert {len(sound) for sound in sounds} == {1, 2, 3}
    lengths = {sound.shape[1] for sound in sounds}
    assert bundle.min_samples in lengths
    assert len(lengths) >= 5
    assert all(sound.std() > 1e-3 for sound in sounds if len(sound) == 1)

"""A bundle on torch and on onnxruntime: the same answers, and what is said where one is missing."""

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest
from together import run_together

from ser_ros import SerError, backends
from ser_ros.__main__ import main
from ser_ros.audio import SAMPLE_RATE
from ser_ros.backends import load_backend
from ser_ros.bundle import load_bundle, save_bundle
from ser_ros.bundle_info import AdaptationInfo, BundleError
from ser_ros.export import TOLERANCE
from ser_ros.frontend_config import LogMelConfig, MfccConfig, SpeechEncoderConfig
from ser_ros.programs import Programs
from ser_ros.stream.recognizer import Recognizer
from ser_ros.stream.torch_backend import geometry
from ser_ros.stream.types import StreamConfig, Window


@pytest.fixture(scope='module')
def torch_backend():
    return load_backend(backend='torch', device='cpu')


@pytest.fixture(scope='module')
def onnx_backend():
    return load_backend(backend='onnx')


SMALL = {
    'by voice': {
        'architecture': 'perceptron',
        'hyperparameters': {},
        'frontend': LogMelConfig(n_mels=16),
        'adaptation': AdaptationInfo(by_voice=True, memory=2.0),
    },
    'speech encoder': {
        'architecture': 'perceptron',
        'hyperparameters': {},
        'frontend': SpeechEncoderConfig(),
    },
    'recurrent': {
        'architecture': 'cnn_lstm',
        'hyperparameters': {},
        'frontend': MfccConfig(win_length=399, n_mels=40, n_mfcc=16, deltas=1),
    },
}


@pytest.fixture(scope='module', params=SMALL)
def both(request, write_bundle, tmp_path_factory):
    """An untrained bundle on torch, and on the programs that `export` put in place of bad ones."""
    path = tmp_path_factory.mktemp('programs') / 'small.safetensors'
    bundle = load_bundle(write_bundle(path, **SMALL[request.param]))
    bad = Programs(b'', b'', geometry(bundle), weights='')
    save_bundle(path, bundle.info, bundle.frontend, bundle.model, bad)
    main(['export', str(path), '--inside'])
    return load_backend(path, 'torch', 'cpu'), load_backend(path, 'onnx')


def recognize(backend, sound, **settings):
    recognizer = Recognizer(backend, config=StreamConfig(**settings))
    return recognizer.push(sound, 0) + recognizer.flush()


def assert_alike(found, expected):
    assert len(found) == len(expected) > 3
    for one, other in zip(found, expected):
        assert (one.stamp_ns, one.is_final) == (other.stamp_ns, other.is_final)
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=TOLERANCE)
        np.testing.assert_allclose(one.unadapted, other.unadapted, atol=TOLERANCE)
        assert one.confidence == pytest.approx(other.confidence, abs=TOLERANCE)


# --- The same answers


def test_the_shipped_bundle_answers_alike(torch_backend, onnx_backend, speech):
    assert (torch_backend.name, onnx_backend.name) == ('torch', 'onnx')
    assert torch_backend.digest == onnx_backend.digest
    assert torch_backend.geometry == onnx_backend.geometry
    assert_alike(recognize(onnx_backend, speech), recognize(torch_backend, speech))


def test_other_architectures_and_front_ends_answer_alike(both, speech):
    torch_backend, onnx_backend = both
    assert_alike(recognize(onnx_backend, speech), recognize(torch_backend, speech))


def test_windows_of_several_lengths_and_voices_are_one_batch(torch_backend, onnx_backend):
    geometry, rng = torch_backend.geometry, np.random.default_rng(0)
    voice = torch_backend.mean + torch_backend.bundle.frontend.std.numpy()
    windows = [
        Window(
            rng.normal(-40, 15, (geometry.n_rows, n)).astype(np.float32),
            0,
            None if n % 2 else voice,
        )
        for n in (geometry.min_frames, 100, 31, 297)
    ]
    together = onnx_backend.score(windows)
    for window, score, other in zip(windows, together, torch_backend.score(windows)):
        (alone,) = onnx_backend.score([window])
        for one in (alone, other):
            np.testing.assert_allclose(
                score.log_probabilities, one.log_probabilities, atol=TOLERANCE
            )
            np.testing.assert_allclose(score.unadapted, one.unadapted, atol=TOLERANCE)
            np.testing.assert_allclose(score.clip_mean, one.clip_mean, atol=1e-3)


@pytest.fixture(scope='module')
def voices(speech, segments):
    """32 voices that begin together or half a second later, loud or quiet, long or short; twelve differ."""
    begins = [s.start for s in segments if s.end - s.start > 1.8 * SAMPLE_RATE]
    rng = np.random.default_rng(0)
    sounds = []
    for number in range(12):
        begin, delay = begins[number % len(begins)], number % 3 * SAMPLE_RATE // 2
        spoken = speech[begin : begin + round(rng.uniform(1.3, 1.8) * SAMPLE_RATE)]
        parts = (np.zeros(delay), rng.uniform(0.1, 1.0) * spoken, np.zeros(SAMPLE_RATE))
        sounds.append(np.concatenate(parts).astype(np.float32))
    return [sounds[number % len(sounds)] for number in range(32)]


@pytest.fixture(scope='module', params=['torch', 'onnx'])
def shipped_backend(request):
    return request.getfixturevalue(f'{request.param}_backend')


@pytest.fixture(scope='module')
def alone(shipped_backend, voices):
    """The estimates of each voice, one at a time."""
    estimates = [run_together(shipped_backend, [sound])[0] for sound in voices[:12]]
    return [estimates[number % 12] for number in range(len(voices))]


@pytest.mark.parametrize('n', [1, 2, 8, 32])
def test_many_voices_have_the_estimates_of_one_at_a_time(
    shipped_backend, voices, alone, n, monkeypatch
):
    sizes, score = [], shipped_backend.score

    def count(windows):
        sizes.append(len(windows))
        return score(windows)

    monkeypatch.setattr(shipped_backend, 'score', count)
    together = run_together(shipped_backend, voices[:n])
    assert max(sizes) > n // 3
    assert sum(sizes) == sum(e.is_window for estimates in together for e in estimates)
    for found, expected in zip(together, alone):
        assert len(found) == len(expected) > 2
        for one, other in zip(found, expected):
            assert (one.stamp_ns, one.is_final) == (other.stamp_ns, other.is_final)
            np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)
            assert one.confidence == pytest.approx(other.confidence, abs=1e-5)


# --- The choice


@pytest.mark.parametrize(
    ('has_gpu', 'device', 'expected'),
    [(False, 'auto', 'onnx'), (True, 'cpu', 'onnx'), (False, 'cpu', 'onnx')],
)
def test_auto_is_onnx_on_a_cpu(monkeypatch, has_gpu, device, expected):
    monkeypatch.setattr(backends, 'has_gpu', lambda: has_gpu)
    assert load_backend(device=device).name == expected


def test_auto_asks_torch_where_there_is_a_gpu(monkeypatch):
    monkeypatch.setattr(backends, 'has_gpu', lambda: True)
    assert load_backend().name == 'torch'


def test_auto_is_torch_for_a_bundle_without_programs(bundle_path):
    assert load_backend(bundle_path, device='cpu').name == 'torch'


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        ({'backend': 'tensorrt'}, "backend 'tensorrt' is not one of auto, torch, onnx"),
        ({'backend': 'onnx', 'device': 'cuda:0'}, 'the backend onnx runs on the CPU'),
    ],
)
def test_a_wrong_choice_is_one_line(arguments, said):
    with pytest.raises(SerError, match=said):
        load_backend(**arguments)


def without_torch(code, tmp_path):
    """Run code in a process in which torch cannot be found; return it."""
    (tmp_path / 'sitecustomize.py').write_text(
        'import sys\n'
        'from importlib.machinery import PathFinder\n'
        'class WithoutTorch(PathFinder):\n'
        '    @classmethod\n'
        '    def find_spec(cls, name, path=None, target=None):\n'
        "        is_torch = name.split('.')[0] in ('torch', 'torchaudio')\n"
        '        return None if is_torch else PathFinder.find_spec(name, path, target)\n'
        'sys.meta_path[sys.meta_path.index(PathFinder)] = WithoutTorch\n'
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get('PYTHONPATH', '')])
    return subprocess.run(
        [sys.executable, '-c', code],
        env={**os.environ, 'PYTHONPATH': path},
        capture_output=True,
        text=True,
    )


def test_without_torch_the_stream_and_predict_work(tmp_path, speech_path):
    run = without_torch(
        f'from ser_ros.__main__ import main; main(["predict", {str(speech_path)!r}])', tmp_path
    )
    assert run.returncode == 0, run.stderr
    assert '"kind": "utterance"' in run.stdout


def test_without_torch_a_bundle_without_programs_names_the_cure(tmp_path, bundle_path):
    for arguments in ('', ', "onnx"'):
        run = without_torch(
            f'from ser_ros.backends import load_backend; load_backend({str(bundle_path)!r}{arguments})',
            tmp_path,
        )
        assert f'`python -m ser_ros export {bundle_path} --inside` adds them' in run.stderr


def test_without_torch_its_backend_is_refused(tmp_path):
    run = without_torch(
        'from ser_ros.backends import load_backend; load_backend(backend="torch")', tmp_path
    )
    assert 'torch is not installed: use backend onnx' in run.stderr.splitlines()[-1]


# --- Programs that do not belong to the bundle


@pytest.fixture
def shipped():
    return load_bundle()


def refusal(bundle, path, programs):
    save_bundle(path, bundle.info, bundle.frontend, bundle.model, programs)
    errors = []
    for backend in ('onnx', 'torch'):
        try:
            load_backend(path, backend, 'cpu')
        except BundleError as error:
            errors.append(str(error))
    return errors


def test_programs_of_other_weights_are_refused(shipped, tmp_path):
    other = dataclasses.replace(shipped.programs, weights='0' * 64)
    errors = refusal(shipped, tmp_path / 'mixed.safetensors', other)
    assert len(errors) == 2
    assert all('made from other weights than it has; export them again' in e for e in errors)


def test_a_bundle_with_other_weights_does_not_keep_its_programs(shipped, tmp_path):
    shipped.frontend.mean += 1.0
    errors = refusal(shipped, tmp_path / 'changed.safetensors', shipped.programs)
    assert all('made from other weights' in error for error in errors)


def test_damaged_programs_are_one_line(shipped, tmp_path):
    path = tmp_path / 'damaged.safetensors'
    save_bundle(path, shipped.info, shipped.frontend, shipped.model, shipped.programs)
    data = bytearray(path.read_bytes())
    where = data.index(shipped.programs.score[2_000:2_032])
    data[where] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(BundleError, match='its ONNX programs are damaged; export them again'):
        load_backend(path, 'onnx')


@pytest.mark.parametrize('program', [b'', b'not ONNX'])
def test_what_is_no_program_is_one_line(shipped, tmp_path, program):
    path = tmp_path / 'none.safetensors'
    programs = dataclasses.replace(shipped.programs, score=program)
    save_bundle(path, shipped.info, shipped.frontend, shipped.model, programs)
    with pytest.raises(BundleError, match='its ONNX programs do not run') as caught:
        load_backend(path, 'onnx')
    assert '\n' not in str(caught.value)


def test_programs_of_another_size_are_refused(shipped, tmp_path):
    path = tmp_path / 'size.safetensors'
    geometry = dataclasses.replace(shipped.programs.geometry, n_rows=65)
    programs = dataclasses.replace(shipped.programs, geometry=geometry)
    save_bundle(path, shipped.info, shipped.frontend, shipped.model, programs)
    with pytest.raises(BundleError, match='ONNX programs'):
        load_backend(path, 'onnx')


def test_values_that_are_not_finite_are_refused(shipped, tmp_path):
    """So small a temperature is 0 in 32 bits."""
    info = dataclasses.replace(shipped.info, temperature=1e-320)
    path = tmp_path / 'b.safetensors'
    save_bundle(path, info, shipped.frontend, shipped.model, shipped.programs)
    with np.errstate(all='ignore'), pytest.raises(BundleError, match='not finite; it is damaged'):
        load_backend(path, 'onnx')


def test_calibrated_bundles_keep_their_programs(shipped, tmp_path, speech):
    path = tmp_path / 'warmer.safetensors'
    info = dataclasses.replace(shipped.info, temperature=2 * shipped.info.temperature)
    save_bundle(path, info, shipped.frontend, shipped.model, shipped.programs)
    sound = speech[: 5 * 16_000]
    assert_alike(
        recognize(load_backend(path, 'onnx'), sound),
        recognize(load_backend(path, 'torch', 'cpu'), sound),
    )


def test_onnxruntime_keeps_and_sends_nothing(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != 'ORT_DISABLE_TELEMETRY'}
    environment |= {'HOME': str(tmp_path), 'XDG_CACHE_HOME': str(tmp_path / 'cache')}
    code = 'from ser_ros.backends import load_backend; load_backend(backend="onnx")'
    subprocess.run([sys.executable, '-c', code], env=environment, check=True, timeout=60)
    assert not any('onnxruntime' in str(path) for path in tmp_path.rglob('*'))

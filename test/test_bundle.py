"""Bundles are read back as they were written; other and damaged files are refused in one line."""

import dataclasses
import hashlib
import json
import math
import resource
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save

from ser_ros import SerError
from ser_ros.bundle import load_bundle, save_bundle
from ser_ros.bundle_info import FORMAT_VERSION, BundleError, BundleInfo, find_bundle, read_info
from ser_ros.emotions import OTHERS, Emotion
from ser_ros.frontend_config import LogMelConfig, MfccConfig, ResearchConfig, VggishConfig


def parts_of(path):
    with safe_open(path, framework='pt') as file:
        weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return file.metadata(), weights


@pytest.fixture
def broken(bundle_path, tmp_path):
    """A function that writes the bundle with changes to its metadata and weights."""
    metadata, weights = parts_of(bundle_path)
    path = tmp_path / 'broken.safetensors'

    def write(changed_metadata=None, changed_weights=None):
        kept = {**metadata, **(changed_metadata or {})}
        kept = {key: value for key, value in kept.items() if value is not None}
        path.write_bytes(save({**weights, **(changed_weights or {})}, kept))
        return path

    return write


def refusal(path):
    """The one line of the error for a file."""
    with pytest.raises(BundleError) as caught:
        load_bundle(path)
    message = str(caught.value)
    assert message.startswith(f'bundle {path}: ')
    assert '\n' not in message
    return message


def test_round_trip(bundle, bundle_info, bundle_path, tmp_path):
    assert bundle.info == bundle_info
    assert bundle.path == bundle_path
    assert not bundle.model.training
    assert bundle.digest == hashlib.sha256(bundle_path.read_bytes()).hexdigest()
    copy = tmp_path / 'copy.safetensors'
    save_bundle(copy, bundle.info, bundle.frontend, bundle.model)
    again = load_bundle(copy)
    features = torch.randn(3, 64, 120, generator=torch.Generator().manual_seed(1))
    scores = bundle.log_probabilities(features)
    torch.testing.assert_close(again.log_probabilities(features), scores, rtol=0, atol=0)


@settings(max_examples=25)
@given(data=st.data())
def test_every_value_is_read_back(data, bundle, tmp_path_factory):
    finite = st.floats(allow_nan=False, allow_infinity=False)
    plain = st.recursive(
        st.none() | st.booleans() | st.integers() | finite | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
    info = dataclasses.replace(
        bundle.info,
        recipe=data.draw(st.dictionaries(st.text(), plain, max_size=3)),
        metrics=data.draw(st.dictionaries(st.text(), plain, max_size=3)),
        temperature=data.draw(st.floats(1e-3, 1e3)),
        threshold=data.draw(st.floats(0, 1)),
        seed=data.draw(st.integers(0, 2**63)),
        license=data.draw(st.text()),
    )
    path = tmp_path_factory.getbasetemp() / 'any.safetensors'
    save_bundle(path, info, bundle.frontend, bundle.model)
    assert load_bundle(path).info == info


def test_probabilities_are_calibrated_by_the_temperature(bundle):
    features = torch.randn(2, 64, 100, generator=torch.Generator().manual_seed(1))
    scores = bundle.log_probabilities(features)
    expected = (bundle.model(features) / bundle.info.temperature).log_softmax(dim=-1)
    torch.testing.assert_close(scores, expected)
    torch.testing.assert_close(scores.exp().sum(dim=-1), torch.ones(2))
    assert scores.device.type == 'cpu'


def test_missing_file(tmp_path):
    assert 'no such file' in refusal(tmp_path / 'missing.safetensors')


def test_folder(tmp_path):
    assert 'no such file' in refusal(tmp_path)


def test_random_bytes(tmp_path):
    path = tmp_path / 'random.safetensors'
    path.write_bytes(bytes(range(256)) * 100)
    assert 'not a safetensors file' in refusal(path)


@pytest.mark.parametrize('share', [0, 1e-6, 1e-5, 1e-3, 0.01, 0.5, 0.999999])
def test_truncated(bundle_path, tmp_path, share):
    whole = bundle_path.read_bytes()
    path = tmp_path / 'truncated.safetensors'
    path.write_bytes(whole[: int(len(whole) * share)])
    assert 'damaged' in refusal(path)


def test_longer_than_its_header_states(bundle_path, tmp_path):
    path = tmp_path / 'longer.safetensors'
    path.write_bytes(bundle_path.read_bytes() + b'\0')
    refusal(path)


@settings(max_examples=60)
@given(position=st.integers(0, 3_000), difference=st.integers(1, 255))
def test_a_flipped_byte_of_the_header_is_refused_or_harmless(
    position, difference, bundle_path, tmp_path_factory
):
    data = bytearray(bundle_path.read_bytes())
    data[position] ^= difference
    path = tmp_path_factory.getbasetemp() / 'flipped.safetensors'
    path.write_bytes(data)
    try:
        bundle = load_bundle(path)
    except BundleError as error:
        assert str(error).startswith(f'bundle {path}: ')
        assert '\n' not in str(error)
    else:
        assert_usable(bundle)


def assert_usable(bundle):
    """Assert that the bundle processes a second of noise."""
    rate = bundle.info.frontend.sample_rate
    noise = torch.randn(1, rate, generator=torch.Generator().manual_seed(1))
    scores = bundle.log_probabilities(bundle.frontend(noise))
    assert scores.shape == (1, len(bundle.info.class_names))
    assert scores.isfinite().all()


class Touch:
    """Leaves a mark when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), 'w'))


@pytest.mark.parametrize('as_zip', [True, False])
def test_a_pickle_is_named_and_never_unpickled(tmp_path, as_zip):
    path, mark = tmp_path / 'model.safetensors', tmp_path / 'unpickled'
    torch.save({'model': Touch(mark)}, path, _use_new_zipfile_serialization=as_zip)
    assert 'pickle' in refusal(path)
    assert not mark.exists()


def test_weights_of_another_program(tmp_path):
    path = tmp_path / 'other.safetensors'
    path.write_bytes(save({'weight': torch.zeros(3)}))
    assert 'not a ser_ros bundle' in refusal(path)


@pytest.mark.parametrize(
    ('version', 'wording'),
    [
        ('0', ''),
        ('1', 'written before the first release of ser_ros, train the model again'),
        ('2', 'written before the first release of ser_ros, train the model again'),
        ('4', 'written by a newer release'),
        ('10', 'written by a newer release'),
        ('1.5', ''),
        ('new', ''),
        (None, ''),
    ],
)
def test_wrong_version(broken, version, wording):
    message = refusal(broken({'format_version': version}))
    assert f'version {version}, ' in message
    assert f'reads {FORMAT_VERSION}' in message
    assert wording in message


REQUIRED = [
    field.name
    for field in dataclasses.fields(BundleInfo)
    if field.default_factory is dataclasses.MISSING
]


@pytest.mark.parametrize('key', REQUIRED)
def test_missing_metadata_is_named(broken, key):
    assert key in refusal(broken({key: None}))


def test_classes_of_ones_own_are_stored_with_their_meaning(write_bundle, tmp_path, bundle):
    contempt = Emotion('annoyed', -0.23, 0.31, 'Russell & Mehrabian (1977), contempt')
    own = {'bored': OTHERS['bored'], 'contempt': contempt}
    names = ('neutral', 'bored', 'contempt')
    path = write_bundle(tmp_path / 'own.safetensors', class_names=names, classes=own)
    assert load_bundle(path).info.classes == own
    # A bundle without any has no such key: earlier releases read it.
    assert bundle.info.classes == {}
    with safe_open(bundle.path, 'pt') as file:
        assert 'classes' not in file.metadata()


@pytest.mark.parametrize(
    ('classes', 'message'),
    [
        ({'yawning': {'expression': 'bored', 'valence': 0.0, 'arousal': 0.0}}, "['yawning']"),
        ({'happy': {'expression': 'sad', 'valence': 0.0, 'arousal': 0.0}}, "['happy']"),
        (
            {'x': {'expression': 'blase', 'valence': 0.0, 'arousal': 0.0}},
            "'blase' is no expression",
        ),
        ({'x': {'expression': 'sad', 'valence': 7.0, 'arousal': 0.0}}, 'valence is 7.0'),
        ({'x': {'expression': 'sad'}}, 'classes.valence, classes.arousal is missing'),
        (['bored'], 'classes is'),
    ],
)
def test_invalid_classes_of_ones_own_are_named(broken, classes, message):
    assert message in refusal(broken({'classes': json.dumps(classes)}))


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_named(broken, bundle, value):
    name, weight = next(iter(bundle.model.state_dict().items()))
    weight = weight.clone()
    weight.view(-1)[-1] = value
    assert f'model.{name}' in refusal(broken(changed_weights={f'model.{name}': weight}))


def test_weights_of_the_wrong_shape_are_named(broken):
    message = refusal(broken(changed_weights={'model.classifier.bias': torch.zeros(7)}))
    assert 'classifier.bias' in message


@pytest.mark.parametrize('name', ['extra', 'model.extra', 'frontend.extra'])
def test_weights_too_many(broken, name):
    assert name.removeprefix('model.') in refusal(broken(changed_weights={name: torch.zeros(1)}))


@pytest.mark.parametrize('name', ['model.classifier.bias', 'frontend.mean', 'frontend.std'])
def test_weights_too_few(bundle_path, tmp_path, name):
    metadata, weights = parts_of(bundle_path)
    del weights[name]
    path = tmp_path / 'fewer.safetensors'
    path.write_bytes(save(weights, metadata))
    assert name.removeprefix('model.') in refusal(path)


STATISTICS = {
    'mean too short': ('mean', torch.zeros(63, 1), r'(63, 1), not (64, 1)'),
    'mean of each frame': ('mean', torch.zeros(64, 98), r'(64, 98), not (64, 1)'),
    'mean without a frame axis': ('mean', torch.zeros(64), r'(64,), not (64, 1)'),
    'mean not finite': ('mean', torch.full((64, 1), math.nan), 'not finite'),
    'mean beyond single precision': (
        'mean',
        torch.full((64, 1), 1e300, dtype=torch.float64),
        'not finite',
    ),
    'std not finite': ('std', torch.full((64, 1), math.inf), 'not finite'),
    'std of zero': ('std', torch.zeros(64, 1), 'not positive'),
}


@pytest.mark.parametrize(('name', 'values', 'wording'), STATISTICS.values(), ids=STATISTICS)
def test_invalid_statistics_are_named(broken, name, values, wording):
    message = refusal(broken(changed_weights={f'frontend.{name}': values}))
    assert f'frontend.{name} ' in message
    assert wording in message


def test_weights_of_a_wider_model_are_a_short_error(broken):
    message = refusal(
        broken({'architecture': '"parallel_cnn_attention_lstm"', 'hyperparameters': '{}'})
    )
    assert 'not the weights of this architecture' in message
    assert 'similar errors)' in message
    assert len(message) < 500


WRONG = {
    'unknown architecture': ('architecture', 'resnet', 'resnet'),
    'unknown hyperparameter': ('hyperparameters', {'depth': 3}, 'depth'),
    'hyperparameter that is an argument': ('hyperparameters', {'n_mels': 3}, 'n_mels'),
    'unknown class': ('class_names', [*'abcdefg', 'happy'], "'a'"),
    'one class': ('class_names', ['happy'], 'two classes'),
    'a class twice': ('class_names', ['happy'] * 8, 'twice'),
    'classes for other weights': ('class_names', ['happy', 'sad'], 'classifier'),
    'temperature of zero': ('temperature', 0.0, 'temperature'),
    'temperature not finite': ('temperature', math.inf, 'temperature'),
    'threshold above one': ('threshold', 1.5, 'threshold'),
    'threshold not a number': ('threshold', math.nan, 'threshold'),
    'endless window': ('window', 1e9, 'window'),
    'window too short': ('window', 0.01, 'window'),
    'unknown front-end setting': ('frontend', {'n_mfcc': 13}, 'n_mfcc'),
    'unknown front-end': ('frontend', {'kind': 'mfc'}, "did you mean 'mfcc'"),
    'front-end of no kind at all': ('frontend', {'kind': ['mfcc']}, 'frontend.kind'),
    'front-end for other weights': ('frontend', {'kind': 'mfcc'}, '(60, 1)'),
    'corpora no mapping': ('corpora', 5, 'corpora'),
    'metrics no mapping': ('metrics', None, 'metrics'),
    'recipe no mapping': ('recipe', [1], 'recipe'),
}


@pytest.mark.parametrize(('key', 'value', 'named'), WRONG.values(), ids=WRONG)
def test_wrong_metadata_is_named(broken, key, value, named):
    assert named in refusal(broken({key: json.dumps(value)}))


def test_metadata_that_is_not_json(broken):
    refusal(broken({'temperature': 'warm'}))


FRONTENDS = {
    'hop of zero': {'hop_length': 0},
    'hop longer than a frame': {'hop_length': 1_024},
    'window longer than the transform': {'win_length': 1_024},
    'no transform': {'n_fft': 0, 'win_length': 0},
    'mels upside down': {'f_min': 7_000.0, 'f_max': 50.0},
    'a rate in words': {'sample_rate': 'high'},
    'a rate of zero': {'sample_rate': 0},
    'half a sample': {'hop_length': 160.5},
    'floor not a number': {'floor_db': math.nan},
}


@pytest.mark.parametrize('changes', FRONTENDS.values(), ids=FRONTENDS)
def test_a_front_end_that_cannot_work_is_refused(broken, changes):
    settings = {**dataclasses.asdict(LogMelConfig()), **changes}
    refusal(broken({'frontend': json.dumps(settings)}))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-10, 2_000)
    | st.floats()
    | st.sampled_from(['happy', 'parallel_cnn_transformer', 'mfcc', 'vggish', '64', '']),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(['kind', 'n_mels', 'hop_length', 'conv_dropout', 'x']), inner
        )
    ),
    max_leaves=4,
)


@settings(max_examples=150)
@given(key=st.sampled_from([f.name for f in dataclasses.fields(BundleInfo)]), value=JSON)
@example(key='architecture', value=[])
@example(key='hyperparameters', value=[])
@example(key='hyperparameters', value={'level_invariant': [1]})
@example(key='frontend', value={'f_min': '50'})
@example(key='frontend', value={'kind': 'research'})
@example(key='class_names', value=[[]])
def test_any_metadata_is_refused_or_works(key, value, bundle_path, tmp_path_factory):
    metadata, weights = parts_of(bundle_path)
    path = tmp_path_factory.getbasetemp() / 'fuzzed.safetensors'
    path.write_bytes(save(weights, {**metadata, key: json.dumps(value)}))
    try:
        bundle = load_bundle(path)
    except BundleError as error:
        assert str(error).startswith(f'bundle {path}: ')
        assert '\n' not in str(error)
    else:
        assert_usable(bundle)


def noise(n, seed=1):
    return 0.1 * torch.randn(n, generator=torch.Generator().manual_seed(seed))


EVERY = {
    'log_mel': LogMelConfig(),
    'mfcc': MfccConfig(),
    'research': ResearchConfig(),
    'vggish': VggishConfig(),
}


@pytest.mark.parametrize('frontend', EVERY.values(), ids=EVERY)
def test_any_front_end_is_read_back_and_classifies_whole_clips(write_bundle, tmp_path, frontend):
    path = write_bundle(tmp_path / 'other.safetensors', frontend=frontend)
    bundle = load_bundle(path)
    assert bundle.info.frontend == frontend
    assert (bundle.frontend.mean == -50).all()
    assert (bundle.frontend.std == 16).all()
    waveform = noise(60_000)
    scores = bundle.classify(waveform)
    assert scores.shape == (8,)
    torch.testing.assert_close(scores.exp().sum(), torch.tensor(1.0))
    expected = bundle.log_probabilities(bundle.frontend(waveform[None]))[0]
    torch.testing.assert_close(scores, expected)
    assert not torch.equal(bundle.classify(noise(60_000, seed=2)), scores)


@pytest.mark.parametrize('frontend', EVERY.values(), ids=EVERY)
def test_a_clip_that_is_too_short_or_silent_is_refused(write_bundle, tmp_path, frontend):
    path = write_bundle(tmp_path / 'other.safetensors', frontend=frontend)
    bundle = load_bundle(path)
    assert bundle.classify(noise(bundle.min_samples)).isfinite().all()
    for waveform, wording in (
        (noise(bundle.min_samples - 1), 'too short'),
        (noise(0), 'too short'),
        (torch.zeros(60_000), 'silent'),
    ):
        with pytest.raises(BundleError) as caught:
            bundle.classify(waveform)
        assert 'clip' in str(caught.value)
        assert wording in str(caught.value)
        assert '\n' not in str(caught.value)


def test_a_clip_with_nothing_after_the_research_offset_is_refused(write_bundle, tmp_path):
    path = write_bundle(tmp_path / 'research.safetensors', frontend=ResearchConfig())
    bundle = load_bundle(path)
    assert bundle.min_samples == 24_001
    waveform = torch.cat((noise(24_000), torch.zeros(48_000)))
    with pytest.raises(BundleError, match='silent'):
        bundle.classify(waveform)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_a_gpu_has_the_same_result(bundle_path):
    bundle = load_bundle(bundle_path)
    expected = bundle.classify(noise(60_000))
    bundle.model.cuda()
    torch.testing.assert_close(bundle.classify(noise(60_000)), expected, atol=1e-3, rtol=1e-3)
    bundle.frontend.cuda()
    torch.testing.assert_close(bundle.classify(noise(60_000)), expected, atol=1e-3, rtol=1e-3)


def test_an_interrupted_save_leaves_the_old_bundle(bundle, bundle_path, tmp_path):
    path = tmp_path / 'kept.safetensors'
    path.write_bytes(bundle_path.read_bytes())
    changed = dataclasses.replace(bundle.info, seed=99)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The disk is full after a part of the file.
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    try:
        with pytest.raises(SerError, match='File too large'):
            save_bundle(path, changed, bundle.frontend, bundle.model)
        with pytest.raises(SerError, match='File too large'):
            save_bundle(tmp_path / 'new.safetensors', changed, bundle.frontend, bundle.model)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert load_bundle(path).info == bundle.info
    assert not (tmp_path / 'new.safetensors').exists()
    save_bundle(path, changed, bundle.frontend, bundle.model)
    assert load_bundle(path).info == changed
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_name_is_a_shipped_bundle_and_a_path_a_file(bundle_path, tmp_path, monkeypatch, root):
    assert find_bundle(bundle_path) == bundle_path
    assert find_bundle(str(bundle_path)) == bundle_path
    monkeypatch.chdir(tmp_path)
    assert not find_bundle('no_such_bundle').exists()
    (tmp_path / 'here').touch()
    assert find_bundle('here').resolve() == tmp_path / 'here'
    with pytest.raises(SerError, match='no_such_bundle'):
        load_bundle('no_such_bundle')


def test_the_shipped_bundle(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    bundle = load_bundle()
    assert bundle.path == load_bundle(bundle.path.stem).path
    info = bundle.info
    assert info.frontend.sample_rate == 16_000
    assert 'NC' in info.license
    assert len(info.recordings) > 2000
    assert_usable(bundle)
    card = bundle.path.with_suffix('.md').read_text()
    for corpus, n_speakers, tested in (
        ('RAVDESS', 24, '01 11 20 21'),
        ('BanglaSER', 34, '01 06 11 14 20 22 27 33'),
    ):
        parts = [set(speakers) for speakers in info.corpora[corpus].values()]
        assert len(set.union(*parts)) == sum(map(len, parts)) == n_speakers
        assert set(info.corpora[corpus]['test']) == set(tested.split())
        metrics = info.metrics['test']['groups']['corpus'][corpus]
        assert metrics['unweighted_accuracy'] >= 0.5
        assert f'{metrics["unweighted_accuracy"]:.1%}' in card
    assert info.license in card


def test_a_file_that_cannot_be_read_is_named():
    """Like a file without read permission, which root can always read."""
    assert 'cannot be read' in refusal(Path('/proc/self/mem'))


@pytest.mark.parametrize(
    'name', ['by_voice', 'by_answers', 'memory', 'neutral_share', 'rare_ratio']
)
def test_missing_values_of_the_adaptation_are_refused(name):
    """By the defaults a model would adapt otherwise than it was calibrated, or not at all."""
    with safe_open(load_bundle().path, 'pt') as file:
        metadata = file.metadata()
    adaptation = json.loads(metadata['adaptation'])
    assert read_info(metadata).adaptation.adapts
    del adaptation[name]
    with pytest.raises(BundleError, match=f'adaptation.{name} is missing'):
        read_info({**metadata, 'adaptation': json.dumps(adaptation)})

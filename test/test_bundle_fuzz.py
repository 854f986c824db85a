"""Bundles with changed bytes and metadata: refused in one line or usable, in little time and memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SEEDS = range(2)
N_EACH = 100
SECONDS = 20.0
"""Limit for each bundle. One takes milliseconds, but this machine may be busy."""
MEGABYTES = 700
"""By which loading all of them may raise the peak of memory; each bundle is 4 MB at most."""

LOAD = """
import json, random, resource, sys, time
from safetensors import safe_open
from safetensors.torch import save
from pathlib import Path
from ser_ros.bundle import load_bundle
from ser_ros.bundle_info import BundleError
from ser_ros.stream.torch_backend import TorchBackend

EXTREMES = (
    -1, 0, 1, 2, 15, 2**16, 2**20, 2**31, 2**31 - 1, 2**62, 2**64, 10**400, -(2**40),
    1e308, -1e308, 1e-308, 0.5, True, None, '', 'x', [], {}, [[]], [1] * 1_000,
)

def places(value, found, at=()):
    found.append(at)
    items = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list):
        items = enumerate(value[:5])
    for key, item in items:
        places(item, found, (*at, key))
    return found

def change(value, at, new):
    if not at:
        return new
    value = dict(value) if isinstance(value, dict) else list(value)
    value[at[0]] = change(value[at[0]], at[1:], new)
    return value

def mutate(rng, data, metadata, weights):
    if rng.random() < 0.3:
        data = bytearray(data)
        end = rng.choice((8, 200, 5_000, len(data)))
        for _ in range(rng.choice((1, 1, 5, 100))):
            data[rng.randrange(end)] = rng.randrange(256)
        return bytes(data), 'bytes'
    key = rng.choice(KEYS)
    value = json.loads(metadata[key])
    at = rng.choice(places(value, []))
    new = rng.choice(EXTREMES)
    changed = {**metadata, key: json.dumps(change(value, at, new))}
    return save(weights, changed), f'{key} {at} {str(new)[:20]}'

KEYS = ('architecture', 'hyperparameters', 'hyperparameters', 'frontend', 'frontend', 'class_names',
        'window', 'temperature', 'threshold', 'adaptation', 'corpora', 'seed')
seed, n, path, *sources = sys.argv[1:]
rng, path = random.Random(int(seed)), Path(path)
bundles = []
for source in sources:
    with safe_open(source, framework='pt') as file:
        weights = {key: file.get_tensor(key) for key in file.keys()}
        bundles.append((Path(source).read_bytes(), file.metadata(), weights))
    TorchBackend(load_bundle(source), 'cpu').warm_up()

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

before = peak()
# What would take all memory of the machine fails instead.
limit = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize() + 2**32
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for number in range(int(n)):
    data, what = mutate(rng, *bundles[number % len(bundles)])
    path.write_bytes(data)
    print(json.dumps({'what': what}), flush=True)
    start = time.monotonic()
    refusal = None
    try:
        bundle = load_bundle(path)
        if bundle.info.can_stream:
            TorchBackend(bundle, 'cpu').warm_up()
    except BundleError as error:
        refusal = str(error)
    print(json.dumps({
        'refusal': refusal, 'seconds': time.monotonic() - start, 'megabytes': peak() - before,
    }), flush=True)
"""


@pytest.fixture(scope='module')
def sources(bundle_path, by_voice_path, write_bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp('sources')
    others = {
        'parallel_fusion': {'encoder_layers': 1, 'heads': 4, 'width': 32, 'feedforward': 64},
        'stacked_cnn_lstm': {'chunk_frames': 64, 'chunk_stride': 32},
    }
    return [
        bundle_path,
        by_voice_path,
        *(
            write_bundle(folder / f'{name}.safetensors', architecture=name, hyperparameters=values)
            for name, values in others.items()
        ),
    ]


@pytest.mark.parametrize('seed', SEEDS)
def test_changed_bundles_are_refused_or_usable(sources, tmp_path, seed):
    path = tmp_path / 'changed.safetensors'
    run = subprocess.run(
        [sys.executable, '-c', LOAD, str(seed), str(N_EACH), path, *sources],
        capture_output=True,
        text=True,
        timeout=N_EACH * SECONDS,
    )
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert run.returncode == 0, (lines[-1:], run.stderr[-2_000:])
    results = list(zip(lines[::2], lines[1::2]))
    assert len(results) == N_EACH
    refusals = [result['refusal'] for _, result in results if result['refusal']]
    assert len(refusals) > N_EACH / 2
    for what, result in results:
        assert result['seconds'] < SECONDS, what
        assert result['megabytes'] < MEGABYTES, what
        refusal = result['refusal'] or ''
        assert '\n' not in refusal
        assert len(refusal) < 500 + len(str(path)) + 20, what
        assert 'allocate' not in refusal, what  # believed, until there was no memory


ENDLESS = {
    'layers': ('hyperparameters', 'encoder_layers', 2**31),
    'no heads': ('hyperparameters', 'heads', 0),
    'less than no heads': ('hyperparameters', 'heads', -4),
    'width': ('hyperparameters', 'width', 2**31 * 4),
    'feedforward': ('hyperparameters', 'feedforward', 2**62),
    'lstm_width': ('hyperparameters', 'lstm_width', 2**40),
    'transform': ('frontend', 'n_fft', 2**31),
    'window of the transform': ('frontend', 'hop_length', 1),
    'rate': ('frontend', 'sample_rate', 2**40),
}


@pytest.mark.parametrize(('key', 'name', 'value'), ENDLESS.values(), ids=ENDLESS)
def test_a_size_is_checked_before_it_is_believed(sources, tmp_path, key, name, value):
    from safetensors import safe_open
    from safetensors.torch import save

    from ser_ros.bundle import load_bundle
    from ser_ros.bundle_info import BundleError

    with safe_open(sources[2], framework='pt') as file:
        weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    changed = {**json.loads(metadata[key]), name: value}
    changes = {key: json.dumps(changed)}
    if name == 'hop_length':
        changes['window'] = '60.0'
    path = Path(tmp_path / 'endless.safetensors')
    path.write_bytes(save(weights, {**metadata, **changes}))
    with pytest.raises(BundleError):
        load_bundle(path)

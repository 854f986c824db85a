"""The cache returns what was computed, even after the disk failed or was full."""

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ser_ros import SerError
from ser_ros.training.data.cache import Cache, cache_key, default_cache

KEY = cache_key(b'sound', {'sample_rate': 16_000})


def arrays(n=1_000, seed=1):
    samples = np.random.default_rng(seed).integers(-(2**15), 2**15, n, np.int16)
    return {'samples': samples, 'speech': np.array([3, n])}


def never():
    raise AssertionError('made again')


def entries(folder):
    return [path for path in folder.rglob('*') if path.is_file()]


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


@pytest.mark.parametrize('n', [0, 1, 1_000])
def test_an_entry_is_computed_once(tmp_path, n):
    assert_same(Cache(tmp_path).get(KEY, lambda: arrays(n)), arrays(n))
    assert_same(Cache(tmp_path).get(KEY, never), arrays(n))


def test_content_and_settings_decide_the_entry(tmp_path):
    keys = [
        cache_key(content, {'version': version, 'sample_rate': rate})
        for content in (b'', b'a', b'b')
        for version in (1, 2)
        for rate in (16_000, 48_000)
    ]
    assert len(set(keys)) == len(keys)
    assert cache_key(b'a', {'sample_rate': 16_000, 'version': 1}) in keys
    for seed, key in enumerate(keys):
        Cache(tmp_path).get(key, lambda seed=seed: arrays(seed=seed))
    for seed, key in enumerate(keys):
        assert_same(Cache(tmp_path).get(key, never), arrays(seed=seed))


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=50))
@example(b'')
@example(b'\0\0\0\0')
def test_an_entry_with_other_bytes_is_computed_again(tmp_path, data):
    Cache(tmp_path).get(KEY, arrays)
    (path,) = entries(tmp_path)
    path.write_bytes(data)
    assert_same(Cache(tmp_path).get(KEY, lambda: arrays(seed=2)), arrays(seed=2))
    assert_same(Cache(tmp_path).get(KEY, never), arrays(seed=2))


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_entry_is_computed_again(tmp_path, data):
    Cache(tmp_path).get(KEY, arrays)
    (path,) = entries(tmp_path)
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans(), 'cut short'):
        path.write_bytes(whole[:place])
    else:
        flipped = whole[place] ^ 1 << data.draw(st.integers(0, 7))
        path.write_bytes(whole[:place] + bytes([flipped]) + whole[place + 1 :])
    assert_same(Cache(tmp_path).get(KEY, arrays), arrays())
    assert path.read_bytes() == whole


def test_a_full_disk_is_an_error_of_one_line_and_leaves_nothing(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, before[1]))
    try:
        with pytest.raises(SerError, match='--cache.*--no-cache') as raised:
            Cache(tmp_path / 'kept').get(KEY, lambda: arrays(10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(tmp_path / 'kept') in str(raised.value)
    assert '\n' not in str(raised.value)
    assert not entries(tmp_path)
    assert_same(Cache(tmp_path / 'kept').get(KEY, arrays), arrays())


def test_an_impossible_folder_is_named(tmp_path):
    (tmp_path / 'file').write_text('in the way')
    with pytest.raises(SerError, match='file/sounds cannot be written'):
        Cache(tmp_path / 'file' / 'sounds').get(KEY, arrays)


def test_a_failed_computation_leaves_nothing(tmp_path):
    with pytest.raises(AssertionError, match='made again'):
        Cache(tmp_path).get(KEY, never)
    assert not entries(tmp_path)


RIVAL = """
import sys
from pathlib import Path
import numpy as np
from ser_ros.training.data.cache import Cache

folder, own = Path(sys.argv[1]), int(sys.argv[2])
made = 0

def make():
    global made
    made += 1
    return {'samples': np.full(200_000, own, np.int16)}

for number in range(150):
    samples = Cache(folder).get(f'{number % 3:064}', make)['samples']
    assert len(samples) == 200_000 and (samples == samples[0]).all() and samples[0] in (1, 2)
    for path in folder.glob('*/*'):
        if number % 10 == own and not path.name.endswith('.part'):
            path.unlink(missing_ok=True)
print(made)
"""


def test_two_processes_may_write_at_once(tmp_path):
    """Each removes entries now and then, so that both have to write again and again."""
    root = Path(__file__).resolve().parents[3]
    rivals = [
        subprocess.Popen(
            [sys.executable, '-c', RIVAL, tmp_path, str(own)],
            stdout=subprocess.PIPE,
            cwd=root,
            text=True,
        )
        for own in (1, 2)
    ]
    outputs = [rival.communicate(timeout=120)[0] for rival in rivals]
    assert [rival.returncode for rival in rivals] == [0, 0]
    assert all(int(output) > 10 for output in outputs)
    assert not [path for path in entries(tmp_path) if path.name.endswith('.part')]


@pytest.mark.parametrize(
    ('variable', 'expected'),
    [('/data/cache', '/data/cache/ser_ros'), ('', '/home/me/.cache/ser_ros')]
    + [(name, '/home/me/.cache/ser_ros') for name in (None, 'not/absolute')],
)
def test_the_default_folder(monkeypatch, variable, expected):
    monkeypatch.setenv('HOME', '/home/me')
    monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
    if variable is not None:
        monkeypatch.setenv('XDG_CACHE_HOME', variable)
    assert default_cache() == Path(expected)

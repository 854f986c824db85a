"""The command `predict` on a Ray cluster: two nodes of one processor each, on this machine."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile

import pytest
from ports import free_port
from tasks import Loading, children, holders, is_running, wait_until

from ser_ros import SerError
from ser_ros.workers import Lost, in_order

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec('ray') is None, reason="needs Ray: pip install '.[cluster]'"
)
RATE = 16_000


@pytest.fixture(scope='module')
def cluster():
    """Ray's own cluster for tests; its files have to have short names."""
    with (
        tempfile.TemporaryDirectory(prefix='ray') as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv('RAY_TMPDIR', folder)
        patch.setenv('RAY_USAGE_STATS_ENABLED', '0')
        # Tests import by name what stands in test/helpers.
        patch.setenv('PYTHONPATH', os.pathsep.join(filter(None, sys.path)))
        from ray.cluster_utils import Cluster

        cluster = Cluster(True, head_node_args={'num_cpus': 1, 'include_dashboard': False})
        try:
            cluster.add_node(num_cpus=1)
            cluster.wait_for_nodes()
            yield cluster
        finally:
            cluster.shutdown()


@pytest.fixture
def predict(run):
    return lambda *arguments: run('predict', '--device', 'cpu', *arguments)


@pytest.fixture
def start(cluster):
    """A function: arguments → the command on the cluster."""
    started = []

    def start_process(*arguments):
        command = [sys.executable, '-m', 'ser_ros', 'predict', '--cluster', cluster.address]
        process = subprocess.Popen(
            [*command, *map(str, arguments)],
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start_process
    for process in started:
        process.kill()
        process.communicate()


@needs_ray
def test_a_cluster_prints_what_one_process_does(predict, start, words, silence):
    files = [*words, silence, 'missing.wav', words[0]]
    process = start(*files)
    out, err = process.communicate(timeout=120)
    status, lines, messages = predict(*files)
    assert (process.returncode, out.splitlines(), err.splitlines()) == (status, lines, messages)


@needs_ray
def test_the_file_of_a_killed_worker_is_predicted_by_another(predict, start, words, long):
    process = start(words[0], long, *words[1:])
    (worker,) = wait_until(lambda: holders(long), 'nobody reads it')
    os.kill(worker, signal.SIGKILL)
    out, err = process.communicate(timeout=120)
    expected = predict(words[0], long, *words[1:])[1]
    assert (process.returncode, out.splitlines(), err) == (0, expected, '')


@needs_ray
def test_a_file_that_kills_two_workers_fails_alone(predict, start, words, long):
    process = start(words[0], long, *words[1:])
    (first,) = wait_until(lambda: holders(long), 'nobody reads it')
    os.kill(first, signal.SIGKILL)
    (second,) = wait_until(lambda: holders(long) - {first}, 'nobody reads it again')
    os.kill(second, signal.SIGKILL)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out.splitlines()) == (1, predict(*words)[1])
    (line,) = err.splitlines()
    assert line.startswith(f'ser_ros: {long}: it ended two workers (')


@needs_ray
def test_an_interrupted_run_ends_its_workers_and_continues(predict, start, words, long, tmp_path):
    files = [*words[:3], long, *words[3:]]
    expected = predict(*files)
    journal = tmp_path / 'journal'
    process = start('--resume', journal, *files)
    printed = [line for line in expected[1] if json.loads(line)['file'] in map(str, words[:3])]
    first = [process.stdout.readline() for _ in printed]
    (worker,) = wait_until(lambda: holders(long), 'nobody reads it')
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.startswith('ser_ros: interrupted; the same command continues')
    assert len(err.splitlines()) == 1
    assert (''.join(first).splitlines(), out) == (printed, '')
    wait_until(lambda: worker not in holders(long), 'the worker stays')
    process = start('--resume', journal, *files)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out.splitlines(), err) == (0, expected[1], '')
    names = [json.loads(line)['key'][0] for line in journal.read_text().splitlines()[1:]]
    assert sorted(names) == sorted(map(str, files))


@needs_ray
def test_another_bundle_of_the_same_name_on_a_node_is_one_line(
    predict, start, words, write_bundle, tmp_path
):
    """Here the one file is exchanged after the command has loaded it, while the cluster works."""
    path = write_bundle(tmp_path / 'mine.safetensors')
    process = start('--bundle', path, '--workers', 1, *words * 20)
    assert process.stdout.readline()
    write_bundle(path, temperature=3.0)
    (worker,) = wait_until(lambda: set().union(*map(holders, words)), 'nobody reads')
    os.kill(worker, signal.SIGKILL)
    _, err = process.communicate(timeout=120)
    (line,) = err.splitlines()
    assert process.returncode == 1
    assert line.startswith('ser_ros: on a machine of the cluster: bundle')
    assert 'is not the file of the same name' in line


@needs_ray
def test_errors_of_the_work_and_of_other_versions_are_one_line(cluster, tmp_path, monkeypatch):
    from ser_ros.cluster import Cluster

    with Cluster(Loading(tmp_path), cluster.address) as workers:
        assert workers.capacity == 4
        tasks = [*[('square', n) for n in range(20)], ('folder', None)]
        assert list(in_order(workers, tasks)) == [*(n**2 for n in range(20)), os.getcwd()]  # noqa: PTH109
        ran = set(in_order(workers, [('process', None)] * 10))
        assert os.getpid() not in ran
        assert Loading(tmp_path).n_loads <= len(ran) + 1
        one, lost, two = in_order(workers, [('square', 1), ('die', None), ('square', 2)])
        assert (one, type(lost), two) == (1, Lost, 4)
        for action, line in (('complain', 'a b c'), ('fail', 'ValueError: a b c')):
            with pytest.raises(SerError, match=f'^on a machine of the cluster: {line}$'):
                list(in_order(workers, [(action, 'a b c')]))
    monkeypatch.setattr('ser_ros.cluster.__version__', '9.9')
    with (
        Cluster(Loading(tmp_path), cluster.address) as workers,
        pytest.raises(SerError, match=r'has ser_ros 0\.1\.0, not 9\.9'),
    ):
        list(in_order(workers, [('square', 1)]))


@needs_ray
def test_an_evaluation_has_the_results_of_one_process(cluster, bundle, words):
    from ser_ros.cluster import Cluster
    from ser_ros.training.data.corpora import Clip
    from ser_ros.training.evaluation.batches import BatchPredictor, encode, predict_with
    from ser_ros.training.evaluation.prediction import predict_clips

    clips = [Clip(path, 'happy', '01', 'mine', name=f'{n}') for n in range(4) for path in words]
    load = BatchPredictor(bundle.path, bundle.digest, 'cpu', -6.0)
    with Cluster(load, cluster.address) as workers:
        results = predict_with(workers)(clips, '')
    assert [result.clip for result in results] == clips
    assert encode(results) == encode(predict_clips(bundle, clips, 'cpu', -6.0))


@needs_ray
def test_a_local_cluster_ends_with_the_command(predict, words):
    with tempfile.TemporaryDirectory(prefix='ray') as folder:
        process = subprocess.Popen(
            [sys.executable, '-m', 'ser_ros', 'predict', '--cluster', 'local', *map(str, words)],
            env={**os.environ, 'RAY_TMPDIR': folder, 'HOME': folder},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        first = process.stdout.readline()
        services = children(process.pid)
        out = first + process.stdout.read()
        assert (process.wait(timeout=120), process.stderr.read()) == (0, '')
        assert out.splitlines() == predict(*words)[1]
        assert len(services) > 2
        wait_until(
            lambda: not {p for p in services if is_running(p)}, 'a part of the cluster stays'
        )


@needs_ray
@pytest.mark.parametrize('address', ['nonsense', '127.0.0.1:{port}', 'nowhere.invalid:1'])
def test_a_cluster_that_is_not_there_is_one_line(predict, words, address, tmp_path, monkeypatch):
    monkeypatch.setenv('RAY_TMPDIR', str(tmp_path))
    monkeypatch.delenv('RAY_ADDRESS', raising=False)
    address = address.format(port=free_port())
    status, out, (line,) = predict('--cluster', address, words[0])
    assert (status, out) == (1, [])
    assert line.startswith(f'ser_ros: --cluster {address}: there is no Ray cluster')


def test_without_ray_one_line_says_how_to_install_it(predict, words, monkeypatch):
    monkeypatch.setitem(sys.modules, 'ray', None)
    status, out, err = predict('--cluster', 'local', words[0])
    assert (status, out) == (1, [])
    assert err == [
        "ser_ros: --cluster needs Ray, which is not installed: pip install '.[cluster]'"
    ]


def test_the_processors_of_a_cluster_are_used_not_its_gpus(predict, words):
    status, out, err = predict('--cluster', 'local', '--device', 'cuda', words[0])
    assert (status, out, len(err)) == (1, [], 1)
    assert '--cluster computes on processors' in err[0]

"""The sound for Foxglove, received by a real client of its protocol."""

import sys
import time

import numpy as np
import pytest
from ports import free_port

from ser_ros import SerError, TransientError
from ser_ros.audio import SAMPLE_RATE, SECOND
from ser_ros.audio.formats import encode_s16le
from ser_ros.view.foxglove import FoxgloveServer

START = 1_700_000_000_123_456_789


def wait(condition, what, timeout=20.0):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f'waited {timeout} s without success for: {what}'
        time.sleep(0.01)


def needs_sdk():
    pytest.importorskip('foxglove', reason="needs foxglove-sdk: pip install '.[foxglove]'")


@pytest.fixture
def listen():
    needs_sdk()
    pytest.importorskip('google.protobuf')
    from foxglove_client import listen

    return listen


@pytest.fixture
def make():
    needs_sdk()
    servers = []

    def make_server(**settings):
        servers.append(FoxgloveServer(**{'host': '127.0.0.1', 'port': 0, **settings}))
        return servers[-1]

    yield make_server
    for server in servers:
        server.stop()


def test_a_client_gets_the_sound_of_the_voice_that_it_subscribes_to(make, listen, speech):
    watched = []
    server = make(on_watched=watched.append)
    server.set_voices({'anna': '/humans/voices/anna/audio', 'ben': '/humans/voices/ben/audio'})
    server.add_sound('anna', speech[:512], START)  # nobody listens
    with listen(server.address, '/humans/voices/anna/audio') as received:
        wait(lambda: server.is_watched, 'a subscription')
        assert watched == [True]
        server.add_sound('ben', speech[:512], START)
        server.add_sound('nobody', speech[:512], START)
        for first in range(0, SAMPLE_RATE, 512):
            stamp = START + first * SECOND // SAMPLE_RATE
            server.add_sound('anna', speech[first : first + 512], stamp)
        wait(lambda: len(received) == 32, 'a second of sound')
    wait(lambda: watched == [True, False], 'that nobody subscribes')
    assert not server.is_watched
    for number, (time_ns, block) in enumerate(received):
        assert time_ns == START + number * 512 * SECOND // SAMPLE_RATE
        assert block.timestamp.ToNanoseconds() == time_ns
        assert (block.format, block.sample_rate, block.number_of_channels) == ('pcm-s16', 16000, 1)
    sound = b''.join(block.data for _, block in received)
    assert sound == encode_s16le(speech[: 32 * 512])
    assert len(set(sound)) > 100


def test_voices_come_and_go_while_somebody_listens(make, listen):
    server = make()
    server.set_voices({'anna': '/anna'})
    sound = (np.zeros(16, np.float32), START)
    with listen(server.address, '/anna') as received:
        wait(lambda: server.is_watched, 'a subscription')
        server.add_sound('anna', *sound)
        wait(lambda: len(received) == 1, 'sound')
        server.set_voices({'ben': '/ben'})
        wait(lambda: not server.is_watched, 'no subscription')
        server.add_sound('anna', *sound)
        server.set_voices({'anna': '/anna', 'ben': '/ben'})
        wait(lambda: server.is_watched, 'a subscription')
        server.add_sound('anna', *sound)
        wait(lambda: len(received) == 2, 'sound')


def test_times_that_foxglove_does_not_have_are_left_out(make, listen):
    server = make()
    server.set_voices({'': '/audio'})
    with listen(server.address, '/audio') as received:
        wait(lambda: server.is_watched, 'a subscription')
        for stamp in (-(2**31) * SECOND, -1, 0, (2**31 - 1) * SECOND + 999_999_999):
            server.add_sound('', np.ones(4, np.float32), stamp)
        wait(lambda: len(received) == 2, 'two blocks')
        assert [time_ns for time_ns, _ in received] == [0, (2**31 - 1) * SECOND + 999_999_999]


def test_it_ends_while_somebody_listens_and_its_port_is_free(make, listen):
    server = make(port=free_port())
    server.set_voices({'': '/audio'})
    with listen(server.address, '/audio'):
        wait(lambda: server.is_watched, 'a subscription')
        server.stop()
        assert not server.is_watched
        server.add_sound('', np.zeros(4, np.float32), START)
    server.stop()
    make(port=int(server.address.rpartition(':')[2]))


def test_a_port_in_use_may_become_free(make):
    port = int(make().address.rpartition(':')[2])
    with pytest.raises(TransientError, match=f'foxglove_port {port}'):
        make(port=port)


@pytest.mark.parametrize('host', ['0.0.0.0', '::', '192.0.2.1', 'robot'])
def test_it_is_not_served_elsewhere(host):
    """Also where the package is missing: it would be refused after its installation."""
    with pytest.raises(SerError, match='knows no token') as error:
        FoxgloveServer(host, 0)
    assert host in str(error.value)
    assert '\n' not in str(error.value)


def test_without_the_package_one_line_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, 'foxglove', None)
    with pytest.raises(SerError, match=r"pip install '\.\[foxglove\]'") as error:
        FoxgloveServer('127.0.0.1', 0)
    assert '\n' not in str(error.value)

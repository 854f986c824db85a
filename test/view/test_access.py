import pytest

from ser_ros.view.access import Access, RateLimit, is_loopback, make_token

TOKEN = 'secret'


def refuses(host, bound='127.0.0.1', **others):
    return Access(bound, TOKEN).refuses({'Host': host, **others}) is not None


@pytest.mark.parametrize('host', ['127.0.0.1:8790', 'localhost:8790', '[::1]:8790', '127.0.0.1'])
def test_this_machine_may_ask(host):
    assert not refuses(host)
    assert not refuses(host, Origin=f'http://{host}')


@pytest.mark.parametrize(
    'host',
    ['evil.example', 'localhost.evil.example:8790', '192.168.1.5:8790', '', '[::1', 'a@b', '::::'],
)
def test_another_name_may_not(host):
    assert refuses(host)


@pytest.mark.parametrize(
    'origin',
    ['http://evil.example', 'null', 'http://127.0.0.1:9', 'http://localhost:8790', '', 'file://'],
)
def test_another_origin_may_not(origin):
    assert refuses('127.0.0.1:8790', Origin=origin)


def test_another_site_may_not_embed_it():
    assert refuses('127.0.0.1', **{'Sec-Fetch-Site': 'cross-site'})
    assert refuses('127.0.0.1', **{'Sec-Fetch-Site': 'same-site'})
    assert not refuses('127.0.0.1', **{'Sec-Fetch-Site': 'same-origin'})


def test_bound_elsewhere_addresses_and_the_own_name_may(monkeypatch):
    monkeypatch.setattr('socket.gethostname', lambda: 'Robot7')
    for host in ('192.168.1.5:8790', '[fe80::1]:8790', 'robot7:8790', 'robot7.local', 'localhost'):
        assert not refuses(host, bound='0.0.0.0')
    for host in ('robot7.evil.example', 'evil.example:8790', 'a@192.168.1.5'):
        assert refuses(host, bound='0.0.0.0')


def test_looking_needs_the_token_only_from_elsewhere():
    wrong = {'Authorization': 'Bearer wrong'}
    for headers in ({}, wrong, {'Sec-WebSocket-Protocol': 'ser-view, token.wrong'}):
        assert Access('127.0.0.1', TOKEN).may_look(headers)
        assert not Access('0.0.0.0', TOKEN).may_look(headers)
        assert not Access('127.0.0.1', TOKEN).may_command(headers)


@pytest.mark.parametrize(
    'headers',
    [
        {'Authorization': f'Bearer {TOKEN}'},
        {'Sec-WebSocket-Protocol': f'ser-view, token.{TOKEN}'},
    ],
)
def test_the_right_token_is_enough(headers):
    assert Access('0.0.0.0', TOKEN).may_look(headers)
    assert Access('127.0.0.1', TOKEN).may_command(headers)


def test_tokens_are_long_and_different():
    assert len({make_token() for _ in range(100)}) == 100
    assert len(make_token()) >= 32


def test_a_rate_is_limited_and_recovers():
    now = [0.0]
    limit = RateLimit(2.0, 5.0, lambda: now[0])
    assert [limit.take() for _ in range(6)] == [True] * 5 + [False]
    now[0] = 1.0
    assert [limit.take() for _ in range(3)] == [True, True, False]


def test_loopback():
    assert all(map(is_loopback, ('127.0.0.1', '127.8.8.8', '::1', '[::1]', 'localhost')))
    assert not any(map(is_loopback, ('0.0.0.0', '::', '10.0.0.1', 'robot', '')))

"""Who may ask the server for what: by host name, origin, token and rate. Nothing here is aiohttp."""

import hmac
import ipaddress
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from typing import Optional
from urllib.parse import urlsplit

WEBSOCKET_PROTOCOL = 'ser-view'
"""Of the page's WebSocket; a second one carries the token, since browsers send no header of ours."""
TOKEN_PREFIX = 'token.'


def make_token() -> str:
    """A token that nobody can guess."""
    return secrets.token_urlsafe(24)


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host.strip('[]')).is_loopback
    except ValueError:
        return host.lower() == 'localhost'


class RateLimit:
    """A bucket of tokens: so many at once, and so many more each second."""

    def __init__(
        self, per_second: float, at_once: float, clock: Callable[[], float] = time.monotonic
    ):
        self._per_second, self._at_once, self._clock = per_second, at_once, clock
        self._left, self._filled = at_once, clock()

    def take(self) -> bool:
        """Whether one more is within the limit."""
        now = self._clock()
        self._left = min(self._at_once, self._left + (now - self._filled) * self._per_second)
        self._filled = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class Access:
    """Decides on requests by their headers, whose names may be of any case."""

    def __init__(self, host: str, token: str, clock: Callable[[], float] = time.monotonic):
        """`host`: the address that the server is bound to."""
        self.is_local = is_loopback(host)
        """Whether those who look need no token; those who command always do."""
        self._host = host
        self._token = token.encode()
        self.requests = RateLimit(100.0, 400.0, clock)
        self.commands = RateLimit(1.0, 10.0, clock)

    def refuses(self, headers: Mapping[str, str]) -> Optional[str]:
        """Why a request is refused whatever it asks for; None if it is not.

        A page of somebody else in the same browser could reach this server by a name that it makes
        point here (DNS rebinding), or simply send requests: names and origins are checked.
        """
        host = headers.get('Host', '')
        if not self._is_ours(host):
            return 'this host name is not one of this server: use its IP address'
        origin = headers.get('Origin')
        if origin is not None and origin.lower() not in (
            f'http://{host.lower()}',
            f'https://{host.lower()}',
        ):
            return 'another origin'
        if headers.get('Sec-Fetch-Site', 'none') not in ('none', 'same-origin'):
            return 'another site'
        return None

    def _is_ours(self, host: str) -> bool:
        """Whether a Host header names this server: no name can be made to point at an address."""
        try:
            parts = urlsplit(f'//{host}')
            name = parts.hostname or ''
            _ = parts.port
        except ValueError:
            return False
        if is_loopback(name):
            return True
        if self.is_local or parts.username is not None:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            own = socket.gethostname().lower()
            return bool(own) and name in (self._host.lower(), own, f'{own}.local')
        return True

    def may_look(self, headers: Mapping[str, str]) -> bool:
        """Whether data may be sent in answer to a request."""
        return self.is_local or self.may_command(headers)

    def may_command(self, headers: Mapping[str, str]) -> bool:
        """Whether the request has the token."""
        given = _token_in(headers)
        return given is not None and hmac.compare_digest(
            given.encode(errors='replace'), self._token
        )


def _token_in(headers: Mapping[str, str]) -> Optional[str]:
    kind, _, value = headers.get('Authorization', '').partition(' ')
    if kind.lower() == 'bearer':
        return value.strip()
    for protocol in headers.get('Sec-WebSocket-Protocol', '').split(','):
        if protocol.strip().startswith(TOKEN_PREFIX):
            return protocol.strip().removeprefix(TOKEN_PREFIX)
    return None

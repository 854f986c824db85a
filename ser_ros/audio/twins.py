"""Input devices of one name: which is the one that was opened, and which are its rivals."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Devices = Sequence[tuple[int, Mapping[str, Any]]]
"""Index and PortAudio's description of each input device."""


class AmbiguousError(Exception):
    """No device is surely the one that was opened; the message says why."""


def without_number(name: str) -> str:
    """A device's name without the number that ALSA gave it: `(hw:2,0)`."""
    return re.sub(r' \(hw:\d+,\d+\)$', '', name)


def rivals(asked: str, index: int, devices: Devices) -> list[str]:
    """The devices that have the name of the device `index`, or that `asked` could mean as well.

    Each as its index and name. One device that several host APIs list is no rival of itself.
    """
    chosen = dict(devices)[index]
    is_by_name = asked not in ('', 'default', chosen['name']) and not asked.isdecimal()
    return [
        f'{i} {device["name"]!r}'
        for i, device in devices
        if i != index
        and device.get('hostapi') == chosen.get('hostapi')
        and (
            without_number(device['name']) == without_number(chosen['name'])
            or (is_by_name and asked.lower() in device['name'].lower())
        )
    ]


@dataclass(frozen=True)
class Opened:
    """A device that was opened, and the names of all input devices that were there then."""

    name: str
    place: int
    """Among the devices of exactly this name, which some systems do not number."""
    there: tuple[str, ...]

    @classmethod
    def of(cls, index: int, devices: Devices) -> 'Opened':
        """The device of this index."""
        name = dict(devices)[index]['name']
        same = [i for i, device in devices if device['name'] == name]
        return cls(name, same.index(index), tuple(device['name'] for _, device in devices))

    def find(self, asked: str, devices: Devices) -> int:
        """The index that the device has now, after it was lost.

        Its own name, with its number, is enough. Another number, or another device that `asked`
        means, may be a twin: it is taken if it is the only one, and was not there before. Raises
        AmbiguousError where that is not so, and KeyError where there is no such device at all.
        """
        same = [i for i, device in devices if device['name'] == self.name]
        if same:
            n_before = max(1, self.there.count(self.name))
            if len(same) != n_before:
                raise AmbiguousError(
                    f'{len(same)} devices have its name, {n_before} had it before'
                )
            return same[self.place]
        names = [lambda name: without_number(name) == without_number(self.name)]
        if asked not in ('', 'default') and not asked.isdecimal():
            names.append(lambda name: asked.lower() in name.lower())
        before = []
        for is_meant in names:
            found = [(i, device['name']) for i, device in devices if is_meant(device['name'])]
            new = [(i, name) for i, name in found if name not in self.there]
            if len(new) > 1:
                listed = ', '.join(f'{i} {name!r}' for i, name in new)
                raise AmbiguousError(f'it could be {listed}')
            if new:
                return new[0][0]
            before += found
        if before:
            index, name = before[0]
            raise AmbiguousError(f'{index} {name!r} was there before: it is another one')
        raise KeyError(self.name)

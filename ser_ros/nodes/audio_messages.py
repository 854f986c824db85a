"""Messages of sound ↔ bytes, of either package that is called audio_common_msgs.

That of ros-drivers has AudioDataStamped and AudioData with bytes, whose format is published as an
AudioInfo of its own. That of mgonzs13 has AudioStamped and Audio with typed samples, each with its
format. `SOUND` is that of the package which is installed here.
"""

import array
from typing import Any, Optional

import numpy as np
from audio_common_msgs import msg

from ser_ros.audio.formats import PcmFormat

Announced = tuple[str, int, int, str]
"""Sample format, channels, rate, coding: the arguments of `BlockQueue.announce`."""


class RosDrivers:
    """Bytes without a format."""

    def __init__(self) -> None:
        self.stamped, self.unstamped = msg.AudioDataStamped, msg.AudioData
        self.info: Optional[type] = msg.AudioInfo

    def pack(self, data: bytes, pcm_format: PcmFormat) -> Any:
        """The message without a stamp of interleaved S16LE."""
        return self.unstamped(data=array.array('B', data))

    def unpack(self, audio: Any) -> tuple[bytes, Optional[Announced]]:
        """The bytes of a message without a stamp, and their format if the message has one."""
        return audio.data.tobytes(), None


ARRAYS = {
    1: ('F32LE', 'float32_data', '<f4'),
    2: ('S32LE', 'int32_data', '<i4'),
    8: ('S16LE', 'int16_data', '<i2'),
    16: ('U8', 'int8_data', 'i1'),
    32: ('U8', 'uint8_data', 'u1'),
}
"""PortAudio's flag of a sample format → the name of what `unpack` makes of it, the array that has the
samples, and their type."""
INT16 = 8


class Mgonzs13:
    """Typed samples with their format."""

    def __init__(self) -> None:
        self.stamped, self.unstamped = msg.AudioStamped, msg.Audio
        self.info: Optional[type] = None

    def pack(self, data: bytes, pcm_format: PcmFormat) -> Any:
        """See `RosDrivers`."""
        samples = np.frombuffer(data, '<i2').astype(np.int16)
        audio = self.unstamped()
        audio.audio_data.int16_data = array.array('h', samples.tobytes())
        audio.info.format = INT16
        audio.info.channels = pcm_format.channels
        audio.info.rate = pcm_format.sample_rate
        audio.info.chunk = len(data) // pcm_format.frame_bytes
        return audio

    def unpack(self, audio: Any) -> tuple[bytes, Optional[Announced]]:
        """See `RosDrivers`.

        A format that is unknown, or of which the message has no samples though it has others, is
        announced by a name that is refused.
        """
        info, arrays = audio.info, audio.audio_data
        filled = [name for _, name, _ in ARRAYS.values() if len(getattr(arrays, name))]
        if not filled:
            return b'', None
        if info.format not in ARRAYS:
            return b'', (f'number {info.format} of PortAudio', info.channels, info.rate, '')
        sample_format, field, sample_type = ARRAYS[info.format]
        if field not in filled:
            mixed = f'{field} with samples in {filled[0]}'
            return b'', (mixed, info.channels, info.rate, '')
        samples = np.asarray(getattr(arrays, field)).astype(sample_type)
        if sample_type == 'i1':
            samples = samples.view(np.uint8) ^ 0x80  # the sign's bit: as unsigned with an offset
        return samples.tobytes(), (sample_format, info.channels, info.rate, '')


def _is_of_ros_drivers() -> bool:
    has_all = {'AudioDataStamped', 'AudioData', 'AudioInfo'} <= set(dir(msg))
    return has_all and msg.AudioData.get_fields_and_field_types() == {'data': 'sequence<uint8>'}


def _is_of_mgonzs13() -> bool:
    if not {'AudioStamped', 'Audio', 'AudioData', 'AudioInfo'} <= set(dir(msg)):
        return False
    return {name for _, name, _ in ARRAYS.values()} <= set(
        msg.AudioData.get_fields_and_field_types()
    )


if _is_of_ros_drivers():
    SOUND: Any = RosDrivers()
elif _is_of_mgonzs13():
    SOUND = Mgonzs13()
else:
    raise ImportError('no messages of sound that are known', name=msg.__name__)

"""Captures from a microphone and prints its state four times a second, as JSON lines.

python watch_microphone.py [fail] [slow]; with `fail`, PortAudio fails to restart the first time;
with `slow`, blocks are longer than the timeout of the watchdog.
"""

import json
import os
import signal
import sys
import threading
from pathlib import Path

from ser_ros import SerError
from ser_ros.audio.microphone import Microphone

stamps = []
ended = threading.Event()


def report(microphone):
    while not ended.wait(0.25):
        print(
            json.dumps(
                {
                    'blocks': microphone.counters.blocks,
                    'losses': microphone.counters.losses,
                    'trouble': microphone.problem,
                    'threads': threading.active_count(),
                    'descriptors': len(list(Path('/proc/self/fd').iterdir())),
                    'stamp': stamps[-1] if stamps else None,
                }
            ),
            flush=True,
        )


class FailsOnce:
    """PortAudio that fails to restart the first time, as it may while devices come and go."""

    def __init__(self, library):
        self._library = library
        self._has_failed = False

    def __getattr__(self, name):
        return getattr(self._library, name)

    def Pa_Initialize(self):  # noqa: N802
        if self._has_failed:
            return self._library.Pa_Initialize()
        self._has_failed = True
        return -9999  # paUnanticipatedHostError


try:
    slow = {'block_duration': 0.5, 'watchdog_timeout': 0.3} if 'slow' in sys.argv else {}
    microphone = Microphone('pulse', sample_rate=16_000, **slow)
    # In another thread, as a node closes it: a handler may interrupt this one while it holds the lock.
    closing = threading.Thread(target=microphone.close, daemon=True)
    signal.signal(signal.SIGTERM, lambda *_: closing.start())
    if 'fail' in sys.argv:
        import sounddevice

        sounddevice._lib = FailsOnce(sounddevice._lib)
    microphone.open()
    threading.Thread(target=report, args=(microphone,), daemon=True).start()
    for block in microphone.blocks():
        stamps.append(block.stamp_ns)
except SerError as error:
    print(json.dumps({'error': str(error)}), flush=True)
    os._exit(3)
closing.join()  # PortAudio must not be terminated, at the end, while it closes the stream
ended.set()
print(json.dumps({'ended': microphone.counters.blocks}), flush=True)

"""A microphone that needs no sound card and can be unplugged."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path


def missing_packages():
    """The Debian packages that it needs and that are not installed."""
    found = {
        'pulseaudio': shutil.which('pulseaudio'),
        'pulseaudio-utils': shutil.which('pactl') and shutil.which('paplay'),
        'libasound2-plugins': list(
            Path('/usr/lib').glob('*/alsa-lib/libasound_module_pcm_pulse.so')
        ),
    }
    return [package for package, is_there in found.items() if not is_there]


class VirtualMicrophone:
    """A PulseAudio server of its own, with its files in a folder: no sound card is needed.

    `play_in_a_loop` plays into the sink `virt`; a process with this `environment` records that
    from PortAudio's device `pulse`.
    """

    def __init__(self, folder):
        self._player = None
        (folder / '.asoundrc').write_text('pcm.!default { type pulse }\n')
        self.environment = {
            **os.environ,
            'HOME': str(folder),
            'XDG_RUNTIME_DIR': str(folder),
            'PULSE_RUNTIME_PATH': str(folder / 'pulse'),
            'PULSE_LATENCY_MSEC': '20',
        }
        self.server = subprocess.Popen(
            [
                *('pulseaudio', '-n', '--daemonize=no', '--exit-idle-time=-1'),
                *('--load=module-native-protocol-unix', '--disable-shm=yes'),
            ],
            env=self.environment,
            stderr=subprocess.DEVNULL,
        )
        try:
            deadline = time.monotonic() + 20.0
            while self._control('info', check=False).returncode:
                if self.server.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError('pulseaudio does not start')
                time.sleep(0.05)
            self.plug()
        except BaseException:
            self.close()
            raise

    def _control(self, *arguments, check=True):
        return subprocess.run(
            ['pactl', *arguments], env=self.environment, capture_output=True, check=check
        )

    def plug(self):
        """Plug the microphone in: create its sink and source."""
        # Without norewinds, it renders two seconds ahead, and the first sound is late by as much.
        self._control('load-module', 'module-null-sink', 'sink_name=virt', 'norewinds=1')
        source = ('master=virt.monitor', 'source_name=virtmic')
        self._control('load-module', 'module-remap-source', *source)
        self._control('set-default-source', 'virtmic')
        self._control('set-default-sink', 'virt')

    def unplug(self):
        """Remove its source and its sink: if one stayed, streams would move to it."""
        self._control('unload-module', 'module-remap-source')
        self._control('unload-module', 'module-null-sink')

    def play_in_a_loop(self, path):
        """Play a sound file in a loop until `close`; it continues after `unplug` and `plug`."""
        command = f'while kill -0 {os.getpid()}; do paplay -d virt "{path}" 2>/dev/null || sleep 0.1; done'
        self._player = subprocess.Popen(
            ['sh', '-c', command], env=self.environment, start_new_session=True
        )

    def close(self):
        """End the player and the server."""
        if self._player is not None:
            os.killpg(self._player.pid, signal.SIGKILL)
            self._player.wait()
        self.server.terminate()
        self.server.wait()

"""A microphone that needs no sound card, and can be pulled out."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path


def missing_packages():
    """Debian's packages that it needs and that are not there."""
    found = {
        'pulseaudio': shutil.which('pulseaudio'),
        'pulseaudio-utils': shutil.which('pactl') and shutil.which('paplay'),
        'libasound2-plugins': list(
            Path('/usr/lib').glob('*/alsa-lib/libasound_module_pcm_pulse.so')
        ),
    }
    return [package for package, is_there in found.items() if not is_there]


class VirtualMicrophone:
    """A PulseAudio server of its own in a folder: no sound card is needed.

    `play_in_a_loop` speaks into the sink `virt`; PortAudio's device `pulse` hears it, in a
    process with this `environment`.
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
        """Put it there."""
        # Without norewinds it renders two seconds ahead, and the first sound comes that late.
        self._control('load-module', 'module-null-sink', 'sink_name=virt', 'norewinds=1')
        source = ('master=virt.monitor', 'source_name=virtmic')
        self._control('load-module', 'module-remap-source', *source)
        self._control('set-default-source', 'virtmic')
        self._control('set-default-sink', 'virt')

    def unplug(self):
        """Take it away whole: without its sink, the stream has nothing to move to."""
        self._control('unload-module', 'module-remap-source')
        self._control('unload-module', 'module-null-sink')

    def play_in_a_loop(self, path):
        """Speak a sound file into it in a loop, through unplugging too, until `close`."""
        command = f'while kill -0 {os.getpid()}; do paplay -d virt "{path}" 2>/dev/null || sleep 0.1; done'
        self._player = subprocess.Popen(
            ['sh', '-c', command], env=self.environment, start_new_session=True
        )

    def close(self):
        """End the server, and what is played."""
        if self._player is not None:
            os.killpg(self._player.pid, signal.SIGKILL)
            self._player.wait()
        self.server.terminate()
        self.server.wait()

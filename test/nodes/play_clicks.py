"""Play clicks and print the system time, in nanoseconds, at which each one sounds."""

import sys
import time

import numpy as np
import sounddevice

RATE = 16_000
N_CLICKS = int(sys.argv[1])
PERIOD = 0.4  # seconds
SETTLING = 5.0  # seconds

frames_played = 0
played = []


def callback(out, n_frames, times, status):
    """Put a click of 1 ms where one is due."""
    global frames_played
    out[:] = 0.0
    due = round((SETTLING + len(played) * PERIOD) * RATE)
    if frames_played <= due < frames_played + n_frames and len(played) < N_CLICKS:
        offset = due - frames_played
        out[offset : offset + 16] = 0.9
        delay = times.outputBufferDacTime - times.currentTime + offset / RATE
        played.append(time.time_ns() + round(delay * 1e9))
    frames_played += n_frames


with sounddevice.OutputStream(RATE, 320, 'pulse', 1, np.float32, callback=callback):
    while len(played) < N_CLICKS:
        time.sleep(0.05)
    time.sleep(PERIOD)
print(*played)

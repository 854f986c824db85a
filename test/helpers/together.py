"""Several voices on one backend, as a listener processes them."""

from ser_ros.audio import SAMPLE_RATE, SECOND
from ser_ros.stream.types import StreamConfig
from ser_ros.stream.voice import Voice

START = 1_700_000_000 * SECOND
BLOCK = 1_600


def run_together(backend, sounds):
    """The estimates for several sounds, each a voice of its own, processed block by block."""
    voices = [Voice(backend, StreamConfig()) for _ in sounds]
    estimates = [[] for _ in sounds]
    for first in range(0, max(map(len, sounds)), BLOCK):
        requests = {
            index: voice.push(sound[first : first + BLOCK], START + first * SECOND // SAMPLE_RATE)
            for index, (voice, sound) in enumerate(zip(voices, sounds))
            if first < len(sound)
        }
        for index, new in zip(requests, backend.run(list(requests.values()))):
            estimates[index] += new
    return estimates

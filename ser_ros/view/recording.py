"""A recording as the page shows it: everything at once, with a time line and the sound."""

import base64
import hashlib
import io
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import soundfile

from ser_ros.audio import SAMPLE_RATE, SECOND
from ser_ros.stream.backend import Backend
from ser_ros.stream.recognizer import Recognizer
from ser_ros.view.model import Model, Topics
from ser_ros.view.server import PAGE

MAX_SECONDS = 1_800.0
"""The longest recording: a page holds all of it."""
STEP = SAMPLE_RATE // 10
MODULES = ('emotions', 'store', 'text', 'draw', 'voice', 'view')
"""The page's JavaScript, each after what it imports."""

Part = tuple[np.ndarray, int]
"""Float32 (n,) samples at 16 kHz, and the stamp of the first in nanoseconds."""


@dataclass(frozen=True)
class Recording:
    """Sound, and what was recognised in it."""

    title: str
    model: Model
    start_ns: int
    samples: np.ndarray
    """Float32 (n,) at 16 kHz from `start_ns` on, silent where nothing was received; empty without sound."""
    duration: float
    """In seconds."""

    def about(self, sound: str) -> dict[str, Any]:
        """For the page; `sound`: the address of the sound."""
        return {
            'start': self.start_ns / SECOND,
            'duration': round(self.duration, 3),
            'sound': sound if len(self.samples) else '',
        }

    def flac(self) -> bytes:
        """The sound as a file."""
        file = io.BytesIO()
        soundfile.write(file, self.samples, SAMPLE_RATE, format='FLAC', subtype='PCM_16')
        return file.getvalue()


def recognise(model: Model, name: str, parts: Iterable[Part], backend: Backend) -> None:
    """Add sound to a voice of a model, and what the recogniser says of it, until `MAX_SECONDS`."""
    recognizer = Recognizer(backend)
    names = recognizer.info.class_names
    first_ns = None
    for samples, stamp_ns in parts:
        first_ns = stamp_ns if first_ns is None else first_ns
        for first in range(0, len(samples), STEP):
            piece, piece_ns = (
                samples[first : first + STEP],
                stamp_ns + first * SECOND // SAMPLE_RATE,
            )
            if piece_ns - first_ns > MAX_SECONDS * SECOND:
                break
            model.add_sound(name, piece, piece_ns)
            estimates = recognizer.push(piece, piece_ns)
            # Before the decision for an utterance comes its end.
            model.set_speaking(name, recognizer.is_speaking)
            for estimate in estimates:
                model.add_estimate(name, estimate, names)
    for estimate in recognizer.flush():
        model.add_estimate(name, estimate, names)
    model.set_speaking(name, False)


def lay_out(parts: Iterable[Part], start_ns: int) -> np.ndarray:
    """Samples from `start_ns` on, each part at its time, until `MAX_SECONDS`."""
    parts = list(parts)
    end_ns = max((stamp + len(s) * SECOND // SAMPLE_RATE for s, stamp in parts), default=start_ns)
    n = round(min((end_ns - start_ns) / SECOND, MAX_SECONDS) * SAMPLE_RATE)
    laid = np.zeros(n, np.float32)
    for samples, stamp_ns in parts:
        first = round((stamp_ns - start_ns) * SAMPLE_RATE / SECOND)
        if 0 <= first < n:
            laid[first : first + len(samples)] = samples[: n - first]
    return laid


def of_sound(title: str, samples: np.ndarray, backend: Backend) -> Recording:
    """Of float32 (n,) samples at 16 kHz."""
    samples = samples[: round(MAX_SECONDS * SAMPLE_RATE)]
    model = Model(is_recording=True)
    model.set_lanes({'': Topics()})
    recognise(model, '', [(samples, 0)], backend)
    return Recording(title, model, 0, samples, len(samples) / SAMPLE_RATE)


def to_html(recording: Recording, bundle: str) -> str:
    """One page that needs nothing else: no server, no network."""
    sound = f'data:audio/flac;base64,{base64.b64encode(recording.flac()).decode()}'
    message = recording.model.frame_and_snapshot()[1]
    message['about'] |= {
        'title': recording.title,
        'bundle': bundle,
        'recording': recording.about(sound),
    }
    data = json.dumps(message, separators=(',', ':'), allow_nan=False).replace('<', '\\u003c')
    style = (PAGE / 'style.css').read_text()
    script = '\n'.join(_without_imports((PAGE / f'{name}.js').read_text()) for name in MODULES)
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; media-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    page = (PAGE / 'index.html').read_text()
    for old, new in (
        (
            '<meta charset="utf-8">',
            '<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" '
            f'content="{policy}">',
        ),
        ('<link rel="icon" href="icon.svg" type="image/svg+xml">\n', ''),
        ('<link rel="stylesheet" href="style.css">', f'<style>{style}</style>'),
        ('<script type="module" src="view.js"></script>', ''),
        (
            '</body>',
            f'<script type="application/json" id="recording">{data}</script>\n'
            f'<script type="module">{script}</script>\n</body>',
        ),
    ):
        before, found, after = page.partition(old)
        assert found, old
        page = before + new + after
    return page


def _without_imports(module: str) -> str:
    """A module's text as a part of one that has all of them."""
    return re.sub(
        r'^import .*\n',
        '',
        re.sub(r'^export ', '', module, flags=re.MULTILINE),
        flags=re.MULTILINE,
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

"""One voice on one backend: the public face of the stream."""

from typing import TYPE_CHECKING, Optional, Union

import numpy as np

from ser_ros.bundle_info import BundleInfo
from ser_ros.stream.adaptation import Adaptation
from ser_ros.stream.backend import Backend
from ser_ros.stream.types import Estimate, StreamConfig, StreamCounters
from ser_ros.stream.voice import Voice

if TYPE_CHECKING:
    from ser_ros.bundle import Bundle


class Recognizer:
    """Samples of one voice in, estimates out.

    Not safe to share between threads. Raises BundleError for a bundle that does not run on a
    16 kHz stream.
    """

    def __init__(
        self,
        bundle: Union[Backend, 'Bundle'],
        device: str = 'auto',
        config: Optional[StreamConfig] = None,
        adaptation: Optional[Adaptation] = None,
    ):
        """`bundle`: from `load_backend`, or one that PyTorch runs on `device`.

        `adaptation`: what is known of the voice.
        """
        self._device = device
        self.backend = self._prepare(bundle)
        self.voice = Voice(self.backend, config or StreamConfig(), adaptation)

    def _prepare(self, bundle: Union[Backend, 'Bundle']) -> Backend:
        if isinstance(bundle, Backend):
            return bundle
        from ser_ros.stream.torch_backend import TorchBackend

        return TorchBackend(bundle, self._device)

    @property
    def info(self) -> BundleInfo:
        """Of the bundle in use."""
        return self.backend.info

    @property
    def config(self) -> StreamConfig:
        """The settings in use."""
        return self.voice.config

    @property
    def counters(self) -> StreamCounters:
        """What happened to the samples so far."""
        return self.voice.counters

    @property
    def is_speaking(self) -> bool:
        """Whether somebody speaks."""
        return self.voice.is_speaking

    def push(self, samples: np.ndarray, stamp_ns: int) -> list[Estimate]:
        """Process float32 (n,) samples at 16 kHz; `stamp_ns` is the time of the first.

        Where the stamp deviates from the last block's end by more than `gap_tolerance`, the stream
        restarts: an open utterance is decided from what was received of it. Raises ValueError for
        another shape or type, or samples that are not finite.
        """
        return self.backend.run([self.voice.push(samples, stamp_ns)])[0]

    def flush(self) -> list[Estimate]:
        """End the stream: decide an open utterance, and accept any stamp next.

        What is known of the voice stays: the next sound may be of the same one.
        """
        return self.backend.run([self.voice.flush()])[0]

    def reset(self) -> None:
        """Forget the stream without a decision, and the voice but for its baseline.

        Any stamp is accepted next.
        """
        self.voice.reset()
        self.voice.adaptation.forget()

    def configure(self, config: StreamConfig) -> None:
        """Continue with other settings, see `Voice.configure`."""
        self.voice.configure(config)

    def replace_bundle(self, bundle: Union[Backend, 'Bundle']) -> None:
        """Continue with another bundle, see `Voice.replace_backend`.

        What is known of the voice is forgotten, with its baseline.
        """
        self.backend = self._prepare(bundle)
        self.voice.adaptation.start_from(None)
        self.voice.replace_backend(self.backend)

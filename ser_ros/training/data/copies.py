"""Augmented copies of the training clips, as features that are computed once and kept in memory."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from ser_ros.features import Frontend
from ser_ros.training.data.augmentation import Augment, chunks_by_length, spectrum_by_length
from ser_ros.training.data.batches import mixed_seed
from ser_ros.training.data.dataset import NO_CLASS, TrainingWindows, pad
from ser_ros.training.recipe import AugmentationConfig

BATCH_SIZE = 128
N_CROPS = 2
"""Of each copy, where the front-end pools over time, so that its features cannot be cropped later."""

CopyItem = tuple[Tensor, int, int, Tensor]
"""(features (n_features, steps), not standardised, label, index of the corpus, the mean of its voice
(n_features, 1))."""

CopyBatch = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""(features (batch, n_features, longest), true steps (batch,), labels (batch,), corpora (batch,),
means of the voices (batch, n_features, 1))."""


class Copies(Dataset):
    """Crops of the features of each clip and of its augmented copies.

    Indexed as `WholeClips`, and drawn by the same rule. The mean of a voice is that over all copies
    of its clips: over all the rooms and microphones that the copies pretend.
    """

    def __init__(
        self,
        features: np.ndarray,
        steps: np.ndarray,
        labels: np.ndarray,
        items: TrainingWindows,
        means: Tensor,
        shortest: int,
        clean_probability: float,
    ):
        """`features`: (n_copies, n_crops, n, n_features, longest), the whole clips first.

        `steps`: (n_copies, n_crops, n). `labels`: (n_copies, n). `items`: the clips. `means`: (n,
        n_features, 1), those of their voices. `shortest`: steps of a crop. `clean_probability`: of
        the first copy; all others have equal chances.
        """
        self.features, self.steps, self.labels = features, steps, labels
        self.items, self.means, self.shortest = items, means, shortest
        self.clean_probability = clean_probability

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, item: tuple[int, ...]) -> CopyItem:
        index, config = item[1], self.items.augmentation
        rng = np.random.default_rng((self.items.seed, *item))
        n_copies, n_crops = self.features.shape[:2]
        copy = crop = 0
        if n_copies > 1 and rng.random() >= self.clean_probability:
            copy = rng.integers(1, n_copies)
        is_cropped = rng.random() >= config.whole_probability
        if is_cropped and n_crops > 1:
            crop = rng.integers(1, n_crops)
        start, end = 0, self.steps[copy, crop, index]
        if is_cropped and n_crops == 1:
            start, end = _draw_crop(rng, config, end, self.shortest)
        x = torch.from_numpy(self.features[copy, crop, index, :, start:end]).float()
        label, corpus = int(self.labels[copy, index]), self.items.corpus(index)
        return x, label, corpus, self.means[index]


def _draw_crop(
    rng: np.random.Generator, config: AugmentationConfig, n: int, shortest: int
) -> tuple[int, int]:
    """Where a crop of `n` steps or frames begins and ends."""
    size = rng.integers(min(shortest, n), n + 1)
    start = 0 if rng.random() < config.onset_probability else rng.integers(n - size + 1)
    return start, start + size


def pad_copies(batch: Sequence[CopyItem]) -> CopyBatch:
    """Collate items, with zeros after the shorter ones."""
    features, labels, corpora, means = zip(*batch)
    x, steps, labels, corpora = pad([*zip((f.T for f in features), labels, corpora)])
    return x.mT.contiguous(), steps, labels, corpora, torch.stack(means)


@torch.inference_mode()
def compute_copies(
    items: TrainingWindows,
    frontend: Frontend,
    augment: Augment,
    n_copies: int,
    least: int,
    clean_probability: float,
) -> Copies:
    """The features of the clips as they are and of `n_copies` augmented copies.

    They take two bytes a value: 38 kB for 3 s of `LogMel`. `least`: the fewest steps of a crop.
    Draws by the seed of `items`, and leaves torch's generators as they were.
    """
    config, rate, device = items.augmentation, frontend.sample_rate, frontend.mean.device
    n_crops = N_CROPS if frontend.is_pooled else 0
    longest = frontend.n_steps(frontend.n_frames(round(config.crop[1] * rate)))
    shape = (1 + n_copies, 1 + n_crops, len(items))
    features = np.zeros((*shape, frontend.n_features, longest), np.float16)
    steps, labels = np.zeros(shape, np.int64), np.zeros((1 + n_copies, len(items)), np.int64)
    fewest = frontend.n_frames(max(frontend.n_samples(least), round(config.crop[0] * rate)))
    voices = {
        voice: i for i, voice in enumerate(sorted({items.voice(i) for i in range(len(items))}))
    }
    voice = torch.tensor([voices[items.voice(i)] for i in range(len(items))])
    totals = torch.zeros(len(voices), frontend.n_features, 1, dtype=torch.float64)
    counts = torch.zeros_like(totals)
    with (
        torch.random.fork_rng(),
        tqdm(
            total=labels.size,
            desc='augmenting',
            unit='clip',
            leave=False,
            disable=None,
        ) as bar,
    ):
        for copy in range(1 + n_copies):
            whole = _whole(items, is_augmented=copy > 0)
            for start in range(0, len(items), BATCH_SIZE):
                rows = slice(start, min(start + BATCH_SIZE, len(items)))
                chosen = [whole[copy, index] for index in range(rows.start, rows.stop)]
                samples, lengths, found, _ = pad(chosen)
                samples, lengths = samples.to(device), lengths.to(device)
                if copy:
                    torch.manual_seed(mixed_seed(items.seed, copy, start))
                    samples = augment.waveform(samples, lengths)
                spectrum = spectrum_by_length(frontend, samples, lengths)
                n_frames = frontend.n_frames(lengths)
                for crop in range(1 + n_crops):
                    part, n = spectrum, n_frames
                    if crop:
                        rng = np.random.default_rng((items.seed, copy, start, crop))
                        part, n = _crop_spectra(rng, config, spectrum, n_frames, fewest)
                    x, own = _features_by_length(frontend, part, n), frontend.n_steps(n)
                    features[copy, crop, rows, :, : x.shape[-1]] = x.cpu().numpy()
                    steps[copy, crop, rows] = own.cpu().numpy()
                    if not crop:
                        means = frontend.clip_mean(x, own).double().cpu()
                # A sound without a voice says nothing about one.
                means[found == NO_CLASS] = torch.nan
                totals.index_add_(0, voice[rows], means.nan_to_num())
                counts.index_add_(0, voice[rows], means.isfinite().double())
                labels[copy, rows] = found.numpy()
                bar.update(len(chosen))
    means = torch.where(counts > 0, totals / counts, torch.nan).float()[voice]
    shortest = frontend.n_steps(fewest)
    return Copies(features, steps, labels, items, means, shortest, clean_probability)


def _features_by_length(frontend: Frontend, spectra: Tensor, n_frames: Tensor) -> Tensor:
    """(batch, n_rows, frames), true frames (batch,) → (batch, n_features, steps).

    Steps after a clip's own are not defined.
    """
    features = spectra.new_zeros(
        len(spectra), frontend.n_features, frontend.n_steps(spectra.shape[-1])
    )
    for clips, longest in chunks_by_length(n_frames):
        x = frontend.features(spectra[clips, :, :longest], n_frames[clips])
        features[clips, :, : x.shape[-1]] = x
    return features


def _crop_spectra(
    rng: np.random.Generator,
    config: AugmentationConfig,
    spectra: Tensor,
    n_frames: Tensor,
    shortest: int,
) -> tuple[Tensor, Tensor]:
    """A crop of each of (batch, n_rows, frames), zero after it, and the frames of each crop."""
    crops, sizes = torch.zeros_like(spectra), torch.zeros_like(n_frames)
    for index, n in enumerate(n_frames.tolist()):
        start, end = _draw_crop(rng, config, n, shortest)
        crops[index, :, : end - start] = spectra[index, :, start:end]
        sizes[index] = end - start
    return crops, sizes


def _whole(items: TrainingWindows, is_augmented: bool) -> TrainingWindows:
    """The same clips as long as possible, with what changes their samples or without."""
    config = replace(items.augmentation, whole_probability=1.0)
    data = items.data
    if not is_augmented:
        config = replace(
            config,
            speed=(1.0, 1.0),
            pitch_probability=0.0,
            silence_probability=0.0,
            edge_jitter=0.0,
        )
        data = replace(data, nonspeech=0.0)
    return TrainingWindows(items.utterances, data, config, items.seed)

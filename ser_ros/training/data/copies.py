"""Augmented copies of the training clips, as features that are computed once and kept in memory."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from ser_ros.features import Frontend
from ser_ros.training.data.augmentation import Augment, spectrum_by_length
from ser_ros.training.data.batches import mixed_seed
from ser_ros.training.data.dataset import NO_CLASS, TrainingWindows, pad

BATCH_SIZE = 128

CopyItem = tuple[Tensor, int, int, Tensor]
"""(features (n_features, frames), not standardised, label, index of the corpus, the mean of its voice
(n_features, 1))."""

CopyBatch = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""(features (batch, n_features, longest), true frames (batch,), labels (batch,), corpora (batch,),
means of the voices (batch, n_features, 1))."""


class Copies(Dataset):
    """Crops of the features of each clip and of its augmented copies, drawn with equal chances.

    Indexed as `WholeClips`, and drawn by the same rule. The mean of a voice is that over all copies
    of its clips: over all the rooms and microphones that the copies pretend.
    """

    def __init__(
        self,
        features: np.ndarray,
        frames: np.ndarray,
        labels: np.ndarray,
        items: TrainingWindows,
        means: Tensor,
        shortest: int,
    ):
        """`features`: (n_copies, n, n_features, frames). `frames`, `labels`: (n_copies, n).

        `items`: the clips. `means`: (n, n_features, 1), those of their voices. `shortest`: frames
        of a crop.
        """
        self.features, self.frames, self.labels = features, frames, labels
        self.items, self.means, self.shortest = items, means, shortest

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, item: tuple[int, ...]) -> CopyItem:
        index, config = item[1], self.items.augmentation
        rng = np.random.default_rng((self.items.seed, *item))
        copy = rng.integers(len(self.features))
        start, end = 0, self.frames[copy, index]
        if rng.random() >= config.whole_probability:
            n = rng.integers(min(self.shortest, end), end + 1)
            if rng.random() >= config.onset_probability:
                start = rng.integers(end - n + 1)
            end = start + n
        x = torch.from_numpy(self.features[copy, index, :, start:end]).float()
        label, corpus = int(self.labels[copy, index]), self.items.corpus(index)
        return x, label, corpus, self.means[index]


def pad_copies(batch: Sequence[CopyItem]) -> CopyBatch:
    """Collate items, with zeros after the shorter ones."""
    features, labels, corpora, means = zip(*batch)
    x, frames, labels, corpora = pad([*zip((f.T for f in features), labels, corpora)])
    return x.mT.contiguous(), frames, labels, corpora, torch.stack(means)


@torch.inference_mode()
def compute_copies(
    items: TrainingWindows, frontend: Frontend, augment: Augment, n_copies: int, least: int
) -> Copies:
    """The features of the clips as they are and of `n_copies` augmented copies.

    They take two bytes a value: 10 kB for 3 s. `least`: the fewest frames of a crop. Draws by the
    seed of `items`, and leaves torch's generators as they were.
    """
    config, rate, device = items.augmentation, frontend.sample_rate, frontend.mean.device
    longest = frontend.n_frames(round(config.crop[1] * rate))
    shape = (1 + n_copies, len(items))
    features = np.zeros((*shape, frontend.n_features, longest), np.float16)
    frames, labels = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    voices = {
        voice: i for i, voice in enumerate(sorted({items.voice(i) for i in range(len(items))}))
    }
    voice = torch.tensor([voices[items.voice(i)] for i in range(len(items))])
    totals = torch.zeros(len(voices), frontend.n_features, 1, dtype=torch.float64)
    counts = torch.zeros_like(totals)
    with (
        torch.random.fork_rng(),
        tqdm(
            total=features[..., 0, 0].size,
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
                n = frontend.n_frames(lengths)
                x = frontend.features(spectrum_by_length(frontend, samples, lengths), n)
                # A sound without a voice says nothing about one.
                means = frontend.clip_mean(x, n).double().cpu()
                means[found == NO_CLASS] = torch.nan
                totals.index_add_(0, voice[rows], means.nan_to_num())
                counts.index_add_(0, voice[rows], means.isfinite().double())
                features[copy, rows, :, : x.shape[-1]] = x.cpu().numpy()
                frames[copy, rows], labels[copy, rows] = n.cpu().numpy(), found.numpy()
                bar.update(len(chosen))
    means = torch.where(counts > 0, totals / counts, torch.nan).float()[voice]
    shortest = max(least, frontend.n_frames(round(config.crop[0] * rate)))
    return Copies(features, frames, labels, items, means, shortest)


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

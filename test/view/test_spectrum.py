import numpy as np
import pytest
import torchaudio
from hypothesis import given
from hypothesis import strategies as st

from ser_ros.audio import SAMPLE_RATE
from ser_ros.view.spectrum import F_MAX, F_MIN, HOP, N_MELS, WINDOW, Columns, mel_filters


def test_the_filters_are_those_of_torchaudio():
    expected = torchaudio.functional.melscale_fbanks(
        WINDOW // 2 + 1, F_MIN, F_MAX, N_MELS, SAMPLE_RATE, norm=None, mel_scale='htk'
    )
    np.testing.assert_allclose(mel_filters(), expected.numpy().T, atol=1e-4)


def test_a_tone_is_bright_in_its_band_alone():
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    peaks, mel = Columns().push(np.sin(2 * np.pi * 1_000 * time).astype(np.float32))
    assert set(peaks[:, 0]) == {-127}
    assert set(peaks[:, 1]) == {127}
    centre = np.linspace(
        2595 * np.log10(1 + F_MIN / 700), 2595 * np.log10(1 + F_MAX / 700), N_MELS + 2
    )
    nearest = np.abs(centre[1:-1] - 1_000).argmin()
    assert abs(int(mel[5].argmax()) - nearest) <= 1
    assert mel[5].max() == 255
    assert mel[5][:5].max() < 60


def test_silence_is_dark():
    _, mel = Columns().push(np.zeros(SAMPLE_RATE, np.float32))
    assert mel.max() == 0


@given(st.lists(st.integers(0, 2_000), max_size=20))
def test_columns_do_not_depend_on_the_blocks(sizes):
    samples = np.random.default_rng(1).uniform(-1, 1, sum(sizes)).astype(np.float32)
    cut = Columns()
    pieces = [cut.push(part) for part in np.split(samples, np.cumsum(sizes))]
    whole = Columns().push(samples)
    for kind in (0, 1):
        joined = np.concatenate([piece[kind] for piece in pieces])
        # Sums of another order differ in the last bit, and that may be rounded to the next shade.
        assert np.abs(joined.astype(int) - whole[kind].astype(int)).max(initial=0) <= 1
    n_columns = len(whole[0])
    assert cut.n_waiting == len(samples) - n_columns * HOP


def test_shapes_and_types():
    peaks, mel = Columns().push(np.zeros(WINDOW - 1, np.float32))
    assert (peaks.shape, peaks.dtype) == ((0, 2), np.int8)
    assert (mel.shape, mel.dtype) == ((0, N_MELS), np.uint8)
    assert pytest.approx(HOP / SAMPLE_RATE) == 0.02

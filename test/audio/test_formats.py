"""PCM bytes to samples, compared with an independent decoder of single numbers."""

import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ser_ros import SerError
from ser_ros.audio.formats import (
    SAMPLE_FORMATS,
    AudioFormatError,
    PcmFormat,
    encode_s16le,
    sanitize,
)


def decode_one(name, data):
    """The bytes of one sample → a number in [-1, 1]."""
    if name == 'U8':
        return (data[0] - 128) / 128
    if name == 'F32LE':
        value = struct.unpack('<f', data)[0]
        return 0.0 if math.isnan(value) else max(-1.0, min(1.0, value))
    return int.from_bytes(data, 'little', signed=True) / 2 ** (8 * len(data) - 1)


@pytest.mark.parametrize('name', SAMPLE_FORMATS)
@given(data=st.binary(max_size=200), channels=st.integers(1, 6))
def test_any_bytes_are_decoded(name, data, channels):
    pcm_format = PcmFormat(name, channels, 16_000)
    samples = pcm_format.decode(data)
    width = SAMPLE_FORMATS[name]
    n_frames = len(data) // (width * channels)
    assert samples.dtype == np.float32
    assert samples.shape == (n_frames, channels)
    assert pcm_format.frame_bytes == width * channels
    expected = [
        decode_one(name, data[i * width : (i + 1) * width]) for i in range(n_frames * channels)
    ]
    np.testing.assert_allclose(samples.ravel(), expected, atol=1e-7)


@pytest.mark.parametrize('name', SAMPLE_FORMATS)
def test_both_ends_of_the_scale(name):
    lowest, highest = {
        'U8': (b'\x00', b'\xff'),
        'S16LE': (b'\x00\x80', b'\xff\x7f'),
        'S24LE': (b'\x00\x00\x80', b'\xff\xff\x7f'),
        'S32LE': (b'\x00\x00\x00\x80', b'\xff\xff\xff\x7f'),
        'F32LE': (struct.pack('<f', -math.inf), struct.pack('<f', 7.0)),
    }[name]
    samples = PcmFormat(name, 1, 16_000).decode(lowest + highest)[:, 0]
    assert samples[0] == -1
    assert 0.99 < samples[1] <= 1


def test_format_names_ignore_case():
    assert PcmFormat('s16le', 1, 16_000) == PcmFormat('S16LE', 1, 16_000)


@pytest.mark.parametrize('coding', ['', 'wave', 'WAVE', 'raw', 'pcm'])
def test_plain_pcm_has_several_names(coding):
    assert PcmFormat('S16LE', 1, 16_000, coding).frame_bytes == 2


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (('S16LE', 1, 16_000, 'mp3'), "coding_format 'mp3'"),
        (('S16BE', 1, 16_000, 'wave'), "sample_format 'S16BE'"),
        (('', 1, 16_000, 'wave'), "sample_format ''"),
        (('S16LE', 0, 16_000, 'wave'), '0 channels'),
        (('S16LE', 255, 16_000, 'wave'), '255 channels'),
        (('S16LE', 1, 0, 'wave'), '0 Hz'),
        (('S16LE', 1, 2**32 - 1, 'wave'), '4294967295 Hz'),
    ],
)
def test_an_unsupported_format_is_refused_in_one_line(settings, message):
    with pytest.raises(AudioFormatError, match=message) as refusal:
        PcmFormat(*settings)
    assert isinstance(refusal.value, SerError)
    assert '\n' not in str(refusal.value)


@given(st.binary(max_size=200).filter(lambda data: len(data) % 2 == 0))
def test_s16le_is_the_same_after_decoding_and_encoding(data):
    assert encode_s16le(PcmFormat('S16LE', 1, 16_000).decode(data)) == data


def test_samples_too_large_for_s16le_are_clipped():
    data = encode_s16le(np.array([[-2.0, 2.0], [1.0, -1.0]]))
    assert np.frombuffer(data, '<i2').tolist() == [-32768, 32767, 32767, -32768]


def test_sanitize_leaves_only_numbers_in_range():
    samples = np.array([np.nan, np.inf, -np.inf, 0.5, -3.0], np.float32)
    assert sanitize(samples).tolist() == [0.0, 1.0, -1.0, 0.5, -1.0]


def test_a_format_is_shown_in_words():
    assert str(PcmFormat('s16le', 1, 16_000, 'wave')) == 'S16LE, mono, 16000 Hz'
    assert str(PcmFormat('F32LE', 6, 48_000)) == 'F32LE, 6 channels, 48000 Hz'

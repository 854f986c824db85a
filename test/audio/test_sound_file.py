"""Sound files whose headers are wrong, and what is left of damaged ones."""

import os
import struct

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_ros.audio import sound_file
from ser_ros.audio.reading import Reading
from ser_ros.audio.sound_file import (
    CUT_SHORT,
    NOT_CLOSED,
    NoSuchChannelError,
    SoundFile,
    SourceError,
)
from ser_ros.audio.sources import read_audio

RATE = 8_000
SAMPLES = np.random.default_rng(1).integers(-(2**15), 2**15, RATE, np.int16)
SOUND = SAMPLES / np.float32(2**15)

FORMATS = ('WAV', 'WAVEX', 'RF64', 'W64', 'AIFF', 'AU', 'CAF')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """One for all examples."""
    return tmp_path_factory.mktemp('sound')


def sound(path, container='WAV', samples=SAMPLES, **settings):
    """The bytes of a file of this format."""
    soundfile.write(os.fsencode(path), samples, RATE, format=container, **settings)
    return bytearray(path.read_bytes())


def read(path):
    """The samples, and the fault."""
    with SoundFile(path) as file:
        blocks = list(file.blocks(1_000))
        return np.concatenate(blocks)[:, 0], file.fault[0]


def set_size(data, container, size):
    """State a number of bytes of sound, as far as the field can."""
    if container == 'AU':
        return _put(data, 8, '>I', size)
    if container == 'RF64':
        return _put(data, data.index(b'ds64') + 16, '<Q', size)
    if container == 'W64':
        return _put(data, data.index(b'data') + 16, '<Q', size and size + 24)
    if container == 'CAF':
        return _put(data, data.index(b'data') + 4, '>Q', size and size + 4)
    if container == 'AIFF':
        return _put(data, data.index(b'SSND') + 4, '>I', size and size + 8)
    return _put(data, data.index(b'data') + 4, '<I', size)


def _put(data, position, code, value):
    size = struct.calcsize(code)
    data[position : position + size] = struct.pack(code, value % (1 << 8 * size))
    return data


# --- The recorder was killed, or wrote into a pipe.


@pytest.mark.parametrize('container', FORMATS)
@pytest.mark.parametrize('size', [0, -1, 0x7FFFF000, 0x80000000, 0xFFFFFF00])
def test_sound_of_unknown_length_is_read_to_its_end(tmp_path, container, size):
    data = sound(path := tmp_path / 'killed', container)
    if size not in (0, -1) and container in ('RF64', 'W64', 'CAF'):
        size = -2  # their fields have 64 bits
    path.write_bytes(set_size(data, container, size))
    samples, fault = read(path)
    np.testing.assert_array_equal(samples, SOUND)
    assert fault == NOT_CLOSED


@pytest.mark.parametrize(
    'subtype', ['PCM_U8', 'PCM_24', 'PCM_32', 'FLOAT', 'DOUBLE', 'ULAW', 'IMA_ADPCM', 'GSM610']
)
@pytest.mark.parametrize('size', [0, -1])
def test_so_is_every_sample_format(tmp_path, subtype, size):
    data = sound(path := tmp_path / 'killed.wav', subtype=subtype)
    expected, _ = read(path)
    path.write_bytes(set_size(data, 'WAV', size))
    samples, fault = read(path)
    np.testing.assert_array_equal(samples[: len(expected)], expected)
    assert len(samples) - len(expected) < 400  # of a block that its fact chunk does not count
    assert fault == NOT_CLOSED


def test_a_killed_recorder_of_24_bits_may_leave_half_a_sample(tmp_path):
    data = set_size(sound(path := tmp_path / 'killed.wav', subtype='PCM_24'), 'WAV', 0)
    path.write_bytes(data[:-1])
    samples, fault = read(path)
    assert (len(samples), fault) == (RATE - 1, NOT_CLOSED)


def test_a_file_with_chunks_but_without_sound_is_empty(tmp_path):
    data = sound(path := tmp_path / 'empty.wav', samples=SAMPLES[:0])
    path.write_bytes(data + b'LIST\x04\0\0\0INFO')
    with pytest.raises(SourceError, match='it holds no samples'):
        SoundFile(path)


def state_flac_length(data, n_samples):
    """Change the number of samples in the header: 36 bits at byte 21.5."""
    data[21] = data[21] & 0xF0 | n_samples >> 32
    data[22:26] = (n_samples & 0xFFFFFFFF).to_bytes(4, 'big')
    return data


@pytest.mark.parametrize('n_samples', [0, 2**36 - 1], ids=['unknown', '256 GB'])
@pytest.mark.parametrize('behind', [b'', b'junk' * 50])
def test_flac_of_unknown_length_is_read_to_its_end(tmp_path, n_samples, behind):
    """As of a FLAC file that was written into a pipe."""
    data = state_flac_length(sound(path := tmp_path / 'piped.flac', 'FLAC'), n_samples)
    path.write_bytes(data + behind)
    samples, fault = read(path)
    np.testing.assert_array_equal(samples, SOUND)
    assert fault == NOT_CLOSED
    np.testing.assert_array_equal(read_audio(path, RATE), SOUND)


def ogg_pages(data):
    """Start and length of each page."""
    position = 0
    while position < len(data):
        n_segments = data[position + 26]
        length = 27 + n_segments + sum(data[position + 27 : position + 27 + n_segments])
        yield position, length
        position += length


@pytest.mark.parametrize('subtype', ['VORBIS', 'OPUS'])
@pytest.mark.parametrize('is_killed', [True, False])
def test_ogg_without_its_last_page_is_read_to_its_end(tmp_path, subtype, is_killed):
    data = sound(path := tmp_path / 'killed.ogg', 'OGG', np.tile(SAMPLES, 6), subtype=subtype)
    expected, fault = read(path)
    assert (len(expected), fault) == (6 * RATE, '')
    *_, (last, _) = ogg_pages(data)
    path.write_bytes(data[: last if is_killed else -10])
    samples, fault = read(path)
    assert 2 * RATE < len(samples) < 6 * RATE
    np.testing.assert_allclose(samples[:-2_000], expected[: len(samples) - 2_000], atol=1e-6)
    assert fault == NOT_CLOSED


# --- The header promises more than there is.


@pytest.mark.parametrize('container', FORMATS)
def test_a_few_samples_that_are_promised_and_missing_are_no_fault(tmp_path, container):
    data = sound(path := tmp_path / 'rounded', container)
    path.write_bytes(set_size(data, container, 2 * (RATE + 80)))
    samples, fault = read(path)
    np.testing.assert_array_equal(samples, SOUND)
    assert fault == ''


def test_so_it_is_with_flac(tmp_path):
    data = sound(path := tmp_path / 'rounded.flac', 'FLAC')
    path.write_bytes(state_flac_length(data, RATE + 80))
    samples, fault = read(path)
    np.testing.assert_array_equal(samples, SOUND)
    assert fault == ''


@pytest.mark.parametrize('container', FORMATS)
@settings(max_examples=15)
@given(share=st.floats(0.05, 0.97))
def test_the_rest_of_a_truncated_file_is_read_and_the_truncation_said(folder, container, share):
    data = sound(path := folder / 'cut', container)
    path.write_bytes(data[: len(data) - 2 * RATE + round(2 * RATE * share)])
    samples, fault = read(path)
    assert abs(len(samples) - share * RATE) <= 4
    np.testing.assert_array_equal(samples, SOUND[: len(samples)])
    assert fault == CUT_SHORT
    with SoundFile(path) as file:
        assert f'it holds {len(samples) / RATE:.3f} of the 1.000 s' in file.note


@given(st.data())
def test_any_bytes_are_sound_or_an_error_in_one_line(folder, data):
    """Files of all formats, cut anywhere, with some bytes replaced: there is no third way."""
    container = data.draw(st.sampled_from((*FORMATS, 'FLAC', 'OGG')))
    content = sound(path := folder / 'any', container)
    for position, value in data.draw(
        st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), max_size=3)
    ):
        content[position] = value
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        with SoundFile(path) as file:
            for block in file.blocks(4_096):
                assert block.dtype == np.float32
                assert 0 < len(block) <= 4_096
            assert '\n' not in file.note
    except SourceError as error:
        assert '\n' not in str(error)
        assert str(path) in str(error)


# --- Before and behind the sound.


@pytest.mark.parametrize('container', FORMATS)
@pytest.mark.parametrize('behind', [b'\xff' * 400, b'TAG' + bytes(125), b'LIST\x04\0\0\0INFO'])
def test_what_follows_the_sound_is_not_sound(tmp_path, container, behind):
    path = tmp_path / 'more'
    path.write_bytes(sound(path, container) + behind)
    samples, fault = read(path)
    np.testing.assert_array_equal(samples, SOUND)
    assert fault == ''


CHUNKS = {
    'LIST': b'LIST\x04\0\0\0INFO',
    'odd': b'note\x03\0\0\0abc\0',
    'JUNK': b'JUNK\x1c\0\0\0' + bytes(28),
    'id3 ': b'id3 \x02\0\0\0xx',
}


@pytest.mark.parametrize('name', CHUNKS)
@pytest.mark.parametrize('before', [b'fmt ', b'data'])
@pytest.mark.parametrize('size', [None, 0])
def test_chunks_may_come_in_any_order(tmp_path, name, before, size):
    data = sound(path := tmp_path / 'more.wav')
    if size is not None:
        set_size(data, 'WAV', size)
    at = data.index(before)
    path.write_bytes(data[:at] + CHUNKS[name] + data[at:])
    samples, fault = read(path)
    np.testing.assert_array_equal(samples, SOUND)
    assert fault == ('' if size is None else NOT_CLOSED)


def test_aiff_may_have_its_description_behind_the_sound(tmp_path):
    data = sound(path := tmp_path / 'a.aiff', 'AIFF')
    at = data.index(b'COMM')
    size = 8 + int.from_bytes(data[at + 4 : at + 8], 'big')
    path.write_bytes(data[:at] + data[at + size :] + data[at : at + size])
    samples, fault = read(path)
    np.testing.assert_array_equal(samples, SOUND)
    assert fault == ''


def test_a_tag_may_come_before_a_wav(tmp_path):
    data = set_size(sound(path := tmp_path / 'a.wav'), 'WAV', 0)
    path.write_bytes(b'ID3\x03\0\0\0\0\1\0' + bytes(128) + data)
    samples, fault = read(path)
    np.testing.assert_array_equal(samples, SOUND)
    assert fault == NOT_CLOSED


# --- Parts of files, names, rates.


@pytest.mark.parametrize('container', [*FORMATS, 'FLAC', 'OGG', 'MP3'])
@settings(max_examples=15)
@given(st.data())
def test_a_part_is_what_the_whole_has_there(folder, container, data):
    path = folder / 'a'
    sound(path, container)
    with SoundFile(path) as file:
        whole = np.concatenate(list(file.blocks()))
    start = data.draw(st.integers(0, RATE - 1))
    end = data.draw(st.integers(start + 1, RATE))
    with SoundFile(path) as file:
        part = np.concatenate(list(file.blocks(700, start / RATE, end / RATE)))
    np.testing.assert_array_equal(part, whole[start:end])


def test_a_part_behind_the_end_is_an_error(tmp_path):
    sound(path := tmp_path / 'a.wav')
    for start in (1.0, 2.0):
        with SoundFile(path) as file, pytest.raises(SourceError, match=r'a\.wav'):
            list(file.blocks(start=start))


def test_names_that_are_not_utf_8_are_opened_and_printable(tmp_path):
    path = tmp_path / os.fsdecode(b'gr\xfcn.wav')
    sound(path)
    np.testing.assert_array_equal(read_audio(path, RATE), SOUND)
    np.testing.assert_array_equal(read_audio(str(path), RATE), SOUND)
    path.write_bytes(b'no sound')
    with pytest.raises(SourceError) as refusal:
        SoundFile(path)
    assert r'gr\xfcn.wav' in str(refusal.value)
    assert str(refusal.value).encode()


@pytest.mark.parametrize('rate', [1, 999, 768_001, 2**31 - 1])
def test_absurd_rates_are_refused(tmp_path, rate):
    """A second of sound at 1 Hz would be 16,000 times as long at 16 kHz."""
    data = _put(sound(path := tmp_path / 'a.wav'), 24, '<I', rate)
    path.write_bytes(data)
    with pytest.raises(SourceError, match=rf'a\.wav: .*{rate} Hz'):
        SoundFile(path)


# --- One channel.


@pytest.mark.parametrize('sample_rate', [RATE, 16_000, 44_100])
@pytest.mark.parametrize('container', ['WAV', 'FLAC', 'OGG'])
def test_blocks_of_one_channel_are_those_of_a_file_with_it_alone(
    tmp_path, monkeypatch, container, sample_rate
):
    monkeypatch.setattr(sound_file, 'BLOCK', 1_000)
    frames = np.stack([SAMPLES, SAMPLES[::-1], SAMPLES // 2], axis=1)
    sound(path := tmp_path / 'three', container, frames)
    with SoundFile(path) as file:
        decoded = np.concatenate(list(file.blocks()))
    sound(alone := tmp_path / 'one.wav', samples=decoded[:, 1], subtype='FLOAT')
    for start, end in ((0.0, None), (0.2, 0.7)):
        with SoundFile(path, Reading(channel=1)) as one, SoundFile(alone) as other:
            samples = np.concatenate(list(one.mono(sample_rate, start, end)))
            expected = np.concatenate(list(other.mono(sample_rate, start, end)))
            np.testing.assert_allclose(samples, expected, atol=1e-6)
            assert one.warnings == []


def test_a_channel_that_it_does_not_have_is_an_error_of_its_own(tmp_path):
    sound(path := tmp_path / 'a.wav')
    with pytest.raises(NoSuchChannelError, match=r'a\.wav: there is no channel 1: '):
        SoundFile(path, Reading(channel=1))


def test_all_that_is_wrong_with_it_is_said(tmp_path):
    frames = 8 * np.stack([SOUND, -SOUND], axis=1)
    data = sound(path := tmp_path / 'a.wav', samples=frames, subtype='FLOAT')
    path.write_bytes(data[:-40_000])
    with SoundFile(path) as file:
        samples = np.concatenate(list(file.mono(16_000)))
        fault, channels, full_scale = file.warnings
    assert np.abs(samples).max() <= 1.0
    assert fault.startswith('cut short: it holds ')
    assert '--channel (0 to 1)' in channels
    assert '--full-scale' in full_scale
    lines = []
    read_audio(path, warn=lines.append)
    assert lines == [fault, channels, full_scale]

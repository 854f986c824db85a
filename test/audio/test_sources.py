"""Sound files of every kind, and files that are not sound."""

import itertools
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from ser_ros.audio import SAMPLE_RATE, SECOND
from ser_ros.audio.formats import PcmFormat
from ser_ros.audio.reading import Reading
from ser_ros.audio.sources import FileSource, OneChannel, SourceError, read_audio

FAST = 1e6


@pytest.fixture(scope='module')
def tone():
    """Half a second at 440 Hz, with an amplitude for which 8 bits are exact to a hundredth."""
    return 0.5 * np.sin(2 * np.pi * 440 * np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE)


@pytest.mark.parametrize(
    ('suffix', 'subtype', 'tolerance'),
    [
        ('wav', 'PCM_U8', 1e-2),
        ('wav', 'PCM_16', 1e-4),
        ('wav', 'PCM_24', 1e-6),
        ('wav', 'PCM_32', 1e-6),
        ('wav', 'FLOAT', 1e-6),
        ('wav', 'DOUBLE', 1e-6),
        ('wav', 'ULAW', 2e-2),
        ('flac', 'PCM_16', 1e-4),
        ('flac', 'PCM_24', 1e-6),
    ],
)
def test_every_sample_format_is_read(tmp_path, tone, suffix, subtype, tolerance):
    path = tmp_path / f'tone.{suffix}'
    soundfile.write(path, tone, SAMPLE_RATE, subtype=subtype)
    samples = read_audio(path)
    assert samples.dtype == np.float32
    np.testing.assert_allclose(samples, tone, atol=tolerance)


@pytest.mark.parametrize('channels', [1, 2, 6])
def test_channels_are_averaged(tmp_path, tone, channels):
    path = tmp_path / 'tone.wav'
    gains = np.arange(channels) / 10
    soundfile.write(path, tone[:, None] * gains, SAMPLE_RATE, subtype='FLOAT')
    np.testing.assert_allclose(read_audio(str(path)), tone * gains.mean(), atol=1e-6)


@pytest.mark.parametrize('rate', [8_000, 22_050, 44_100, 48_000])
def test_other_rates_are_resampled_to_16_khz(tmp_path, tone, rate):
    path = tmp_path / 'tone.wav'
    time = np.arange(rate // 2) / rate
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * 440 * time), rate, subtype='FLOAT')
    samples = read_audio(path)
    assert samples.dtype == np.float32
    assert abs(len(samples) - len(tone)) <= 1
    # The filter of the resampler rings at the start and the end of the tone.
    np.testing.assert_allclose(samples[500:7_000], tone[500:7_000], atol=1e-3)


def test_invalid_values_in_float_files_are_replaced(tmp_path):
    path = tmp_path / 'wild.wav'
    soundfile.write(path, np.array([np.nan, np.inf, -7.0, 0.5]), SAMPLE_RATE, subtype='FLOAT')
    assert read_audio(path).tolist() == [0.0, 1.0, -1.0, 0.5]


def pointer(path):
    path.write_text('version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 99\n')


def header_only(path):
    soundfile.write(path, np.zeros(0), SAMPLE_RATE)


def half_a_flac(path, n_bytes=None):
    """Noise of two seconds, of which about one is left; all its samples."""
    noise = np.random.default_rng(1).integers(-(2**15), 2**15, 32_000, np.int16)
    soundfile.write(path, noise, SAMPLE_RATE)
    data = path.read_bytes()
    path.write_bytes(data[: n_bytes or len(data) // 2])
    return noise


@pytest.mark.parametrize(
    ('name', 'make'),
    [
        ('missing.wav', lambda path: None),
        ('folder.wav', lambda path: path.mkdir()),
        ('empty.wav', lambda path: path.touch()),
        ('empty.flac', lambda path: path.touch()),
        ('header.wav', header_only),
        ('pointer.wav', pointer),
        ('text.mp3', lambda path: path.write_text('no sound')),
        ('bytes.raw', lambda path: path.write_bytes(bytes(1_000))),
        ('beginning.flac', lambda path: half_a_flac(path, 200)),
    ],
)
def test_a_file_that_is_not_sound_is_named_in_one_line(tmp_path, name, make):
    path = tmp_path / name
    make(path)
    with pytest.raises(SourceError, match=name) as refusal:
        read_audio(path)
    assert '\n' not in str(refusal.value)


@pytest.mark.parametrize('n_bytes', [100, 1_001, 8_000])
def test_the_samples_of_a_truncated_wav_are_read(tmp_path, tone, n_bytes):
    path = tmp_path / 'cut.wav'
    soundfile.write(path, tone, SAMPLE_RATE)
    path.write_bytes(path.read_bytes()[:n_bytes])
    samples = read_audio(path)
    assert len(samples) == (n_bytes - 44) // 2
    np.testing.assert_allclose(samples, tone[: len(samples)], atol=1e-4)


def play(source):
    source.open()
    return list(source.blocks())


@pytest.fixture
def stereo(tmp_path):
    path = tmp_path / 'stereo.wav'
    values = np.arange(44_100 * 2, dtype=np.int16).reshape(-1, 2)
    soundfile.write(path, values[:10_000], 44_100)
    return path, values[:10_000]


def test_blocks_contain_the_unchanged_samples_of_the_file(stereo):
    path, values = stereo
    source = FileSource(path, block_duration=0.02, speed=FAST, trailing_silence=1.0)
    assert source.format == PcmFormat('S16LE', 2, 44_100)
    assert source.duration == pytest.approx(10_000 / 44_100)
    assert path.name in source.description
    blocks = play(source)
    data = b''.join(block.data for block in blocks)
    assert data == values.astype('<i2').tobytes() + bytes(44_100 * 4)
    assert {len(block.data) for block in blocks[:-1]} <= {882 * 4, (10_000 % 882) * 4}
    assert source.counters.blocks == len(blocks)


def test_stamps_advance_by_the_sample_clock(stereo):
    source = FileSource(stereo[0], speed=FAST, trailing_silence=0.1)
    blocks = play(source)
    n_frames = 0
    for block in blocks:
        assert block.stamp_ns - blocks[0].stamp_ns == n_frames * SECOND // 44_100
        n_frames += len(block.data) // 4
    assert n_frames == 10_000 + 4_410


def test_a_loop_continues_until_it_is_ended(stereo):
    path, values = stereo
    source = FileSource(path, block_duration=0.1, speed=FAST, loop=True, trailing_silence=0.1)
    source.open()
    n_blocks = 3 * 4  # three blocks of sound and one of silence, three times
    blocks = list(itertools.islice(source.blocks(), n_blocks))
    once = values.astype('<i2').tobytes() + bytes(4_410 * 4)
    assert b''.join(block.data for block in blocks) == 3 * once
    stamps = [block.stamp_ns for block in blocks]
    assert stamps == sorted(stamps)


def test_it_can_be_closed_while_it_waits(stereo):
    # So slow that the first block would come after hours.
    source = FileSource(stereo[0], speed=1e-6)
    source.open()
    blocks = []
    reader = threading.Thread(target=lambda: blocks.extend(source.blocks()), daemon=True)
    reader.start()
    source.close()
    reader.join(30)
    assert not reader.is_alive()
    assert blocks == []


def test_opened_again_it_starts_from_the_beginning(stereo):
    source = FileSource(stereo[0], speed=FAST)
    source.open()
    blocks = source.blocks()
    first = next(blocks)
    source.close()
    assert list(blocks) == []
    again = play(source)
    assert again[0].data == first.data
    assert [block.data for block in again] == [block.data for block in play(source)]


@pytest.mark.parametrize('speed', [0, -1, float('nan')])
def test_an_invalid_speed_is_refused(stereo, speed):
    with pytest.raises(SourceError, match='speed'):
        FileSource(stereo[0], speed=speed)


def test_a_missing_file_is_reported_at_once(tmp_path):
    with pytest.raises(SourceError, match='no such file'):
        FileSource(tmp_path / 'missing.wav')


def test_a_file_that_was_deleted_before_it_is_opened_is_an_error(stereo):
    source = FileSource(stereo[0])
    stereo[0].unlink()
    with pytest.raises(SourceError, match='no such file'):
        source.open()


def test_what_is_left_of_a_truncated_flac_is_played_and_its_end_is_said(tmp_path):
    path = tmp_path / 'half.flac'
    noise = half_a_flac(path)
    source = FileSource(path, speed=FAST, trailing_silence=0)
    samples = np.frombuffer(b''.join(block.data for block in play(source)), '<i2')
    assert 12_000 < len(samples) < 17_000
    np.testing.assert_array_equal(samples, noise[: len(samples)])
    assert (
        f'half.flac: cut short: it holds {len(samples) / 16_000:.3f} of the 2.000' in source.note
    )
    assert source.duration == len(samples) / 16_000


@pytest.mark.parametrize('suffix', ['wav', 'flac'])
def test_a_file_whose_recorder_was_killed_is_played_to_its_end(tmp_path, tone, suffix):
    path = tmp_path / f'killed.{suffix}'
    soundfile.write(path, tone, SAMPLE_RATE)
    data = bytearray(path.read_bytes())
    size = slice(40, 44) if suffix == 'wav' else slice(22, 26)
    data[size] = bytes(4)
    path.write_bytes(data)
    source = FileSource(path, block_duration=0.03, speed=FAST, loop=True, trailing_silence=0)
    assert source.duration == 0.5
    source.open()
    blocks = [block.data for block in itertools.islice(source.blocks(), 2 * 17)]
    samples = np.frombuffer(b''.join(blocks), '<i2') / 2.0**15
    np.testing.assert_allclose(samples, np.tile(tone, 2), atol=1e-4)
    assert 'recorder was not closed' in source.note


def test_a_rate_that_no_subscriber_accepts_is_refused(tmp_path):
    path = tmp_path / 'slow.wav'
    soundfile.write(path, np.zeros(500), 500)
    with pytest.raises(SourceError, match='slow.wav.*500 Hz'):
        FileSource(path)


def write_channels(path, *channels, subtype='PCM_16'):
    soundfile.write(path, np.stack(channels, axis=1), SAMPLE_RATE, subtype=subtype)
    return path


def read_with_warnings(path, **reading):
    warnings = []
    samples = read_audio(path, reading=Reading(**reading), warn=warnings.append)
    return samples, warnings


def test_one_channel_of_a_file_is_read(tmp_path, tone):
    path = write_channels(tmp_path / 'a.wav', tone, 0.5 * tone, 0.25 * tone)
    for channel, gain in enumerate((1.0, 0.5, 0.25)):
        samples, warnings = read_with_warnings(path, channel=channel)
        np.testing.assert_allclose(samples, gain * tone, atol=1e-4)
        assert warnings == []


@pytest.mark.parametrize(('n_channels', 'channel'), [(1, 1), (2, 2), (6, 40)])
def test_a_channel_that_a_file_does_not_have_is_one_line(tmp_path, tone, n_channels, channel):
    path = write_channels(tmp_path / 'a.wav', *([tone] * n_channels))
    with pytest.raises(SourceError, match=f'a.wav: there is no channel {channel}') as error:
        read_audio(path, reading=Reading(channel=channel))
    assert '\n' not in str(error.value)
    with pytest.raises(SourceError, match=f'a.wav.*: there is no channel {channel}'):
        OneChannel(FileSource(path), channel)


@pytest.mark.parametrize('subtype', ['PCM_16', 'PCM_24', 'FLOAT'])
def test_channels_that_cannot_be_averaged_are_said(tmp_path, speech, subtype):
    path = write_channels(tmp_path / 'a.wav', speech, -speech, subtype=subtype)
    _, (warning,) = read_with_warnings(path)
    assert 'cancel each other' in warning
    assert '--channel (0 to 1)' in warning
    assert read_with_warnings(path, channel=1)[1] == []


def test_two_channels_that_agree_are_averaged_without_a_word_and_six_with_one(tmp_path, speech):
    assert read_with_warnings(write_channels(tmp_path / 'a.wav', speech, 0.5 * speech))[1] == []
    _, (warning,) = read_with_warnings(write_channels(tmp_path / 'b.wav', *([speech] * 6)))
    assert 'its 6 channels are averaged' in warning


@pytest.mark.parametrize('subtype', ['FLOAT', 'DOUBLE'])
def test_a_float_file_beyond_full_scale_is_said_and_scaled_if_that_is_asked_for(
    tmp_path, tone, subtype
):
    path = write_channels(tmp_path / 'a.wav', 32_768 * tone, subtype=subtype)
    samples, (warning,) = read_with_warnings(path)
    assert np.abs(samples).max() == 1.0
    assert 'beyond full scale' in warning
    assert '--full-scale' in warning
    samples, warnings = read_with_warnings(path, full_scale=32_768.0)
    np.testing.assert_allclose(samples, tone, atol=1e-4)
    assert warnings == []


def test_integers_have_their_own_full_scale(tmp_path, tone):
    samples, warnings = read_with_warnings(
        write_channels(tmp_path / 'a.wav', tone), full_scale=32_768.0
    )
    np.testing.assert_allclose(samples, tone, atol=1e-4)
    assert warnings == []


def test_a_file_source_counts_what_it_clips(tmp_path, tone):
    path = write_channels(tmp_path / 'a.wav', 4 * tone, subtype='FLOAT')
    source = FileSource(path, speed=FAST)
    source.open()
    list(source.blocks())
    assert source.counters.samples_beyond_full_scale == np.count_nonzero(np.abs(4 * tone) > 1)
    source = FileSource(path, speed=FAST, full_scale=4.0)
    source.open()
    sound = b''.join(block.data for block in source.blocks())
    samples = source.format.decode(sound)[: len(tone), 0]
    np.testing.assert_allclose(samples, tone, atol=1e-4)
    assert not source.counters.samples_beyond_full_scale


@given(st.integers(1, 8), st.data())
def test_a_source_of_one_channel_delivers_what_the_whole_one_has_there(n_channels, data):
    channel = data.draw(st.integers(0, n_channels - 1))
    frames = np.random.default_rng(n_channels).uniform(-1, 1, (1_000, n_channels))
    with tempfile.TemporaryDirectory() as folder:
        path = write_channels(Path(folder, 'a.wav'), *frames.T)
        whole, one = (
            FileSource(path, speed=FAST),
            OneChannel(FileSource(path, speed=FAST), channel),
        )
        whole.open()
        one.open()
        sound, alone = list(whole.blocks()), list(one.blocks())
    assert one.format == PcmFormat('S16LE', 1, SAMPLE_RATE)
    assert one.description.startswith(f'channel {channel} of file')
    assert one.counters == whole.counters
    assert len(sound) == len(alone)
    for block, other in zip(sound, alone):
        expected = whole.format.decode(block.data)[:, channel]
        np.testing.assert_array_equal(one.format.decode(other.data)[:, 0], expected)


def test_what_is_wrong_with_a_file_is_known_of_one_channel_too(tmp_path):
    path = tmp_path / 'half.flac'
    half_a_flac(path)
    source = OneChannel(FileSource(path, speed=FAST, trailing_silence=0), 0)
    play(source)
    assert 'cut short' in source.warning
    soundfile.write(path, np.zeros(100), SAMPLE_RATE)
    assert OneChannel(FileSource(path), 0).warning is None

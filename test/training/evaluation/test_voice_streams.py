"""Streams of a speaker's clips are drawn fairly, and scored as the recogniser does."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from ser_ros import SerError
from ser_ros.audio import SAMPLE_RATE
from ser_ros.audio.sources import read_audio
from ser_ros.stream.adaptation import prior_shift
from ser_ros.stream.recognizer import Recognizer
from ser_ros.training.data.corpora import Clip
from ser_ros.training.evaluation.prediction import predict_clips, stream_sound
from ser_ros.training.evaluation.voice_streams import (
    BASIC,
    N_KNOWN,
    N_SPEAKERS,
    N_UTTERANCES,
    VoiceStream,
    adapt,
    cold_scores,
    draw_streams,
    draw_streams_to_choose_by,
    expression_of,
    find_utterances,
    known_scores,
    repeated_share,
)

CPU = torch.device('cpu')


def clips_of(speakers, emotions=('neutral', 'happy', 'sad', 'angry'), n=3):
    return [
        Clip(Path(f'{speaker}_{emotion}_{i}.wav'), emotion, speaker, 'mine')
        for speaker in speakers
        for emotion in emotions
        for i in range(n)
    ]


# --- Which utterances


def test_streams_have_the_shares_of_their_kind():
    clips = clips_of('ab')
    streams = draw_streams(clips)
    assert Counter(s.kind for s in streams) == {
        'balanced': 4, 'mostly neutral': 4, **{f'only {name}': 2 for name in BASIC}
    }  # fmt: skip
    for stream in streams:
        assert len(stream.clips) == N_UTTERANCES
        assert {clips[i].voice for i in stream.clips} == {stream.voice}
        drawn = Counter(expression_of(clips[i]) for i in stream.clips)
        if stream.kind == 'balanced':
            assert set(drawn.values()) == {N_UTTERANCES // 4}
        elif stream.kind == 'mostly neutral':
            assert drawn['neutral'] == 28
        else:
            assert drawn == {stream.kind.removeprefix('only '): N_UTTERANCES}


def test_a_clip_is_repeated_only_after_all_others_of_its_expression():
    clips = clips_of('a', n=5)
    for stream in draw_streams(clips):
        for name in BASIC:
            drawn = [i for i in stream.clips if expression_of(clips[i]) == name]
            for start in range(0, len(drawn) - 4, 5):
                assert len(set(drawn[start : start + 5])) == 5


def test_repeated_utterances_are_counted_after_the_first_ones():
    distinct = tuple(range(N_UTTERANCES))
    # Two of thirty: what came among the first ten, and one that came after them.
    some = (*distinct[:-2], 0, 20)
    share = repeated_share([VoiceStream('balanced', 'a', clips) for clips in (distinct, some)])
    assert share == 2 / (2 * (N_UTTERANCES - N_KNOWN))


def test_streams_are_the_same_every_time_and_not_all_alike():
    clips = clips_of('abc')
    streams = draw_streams(clips)
    assert streams == draw_streams(clips)
    balanced = [s.clips for s in streams if s.kind == 'balanced']
    assert len(set(balanced)) == len(balanced)


def test_calm_is_neutral_and_other_classes_are_left_out():
    clips = clips_of('a', ('calm', 'happy', 'angry', 'fearful'), n=4)
    streams = draw_streams(clips)
    assert {s.kind for s in streams} == {
        'balanced', 'mostly neutral', 'only neutral', 'only happy', 'only angry'
    }  # fmt: skip
    assert all(clips[i].emotion != 'fearful' for s in streams for i in s.clips)


@pytest.mark.parametrize(
    ('emotions', 'kinds'),
    [
        (('happy', 'sad'), {'balanced', 'only happy', 'only sad'}),
        (('neutral',), {'balanced', 'only neutral'}),
        (('fearful',), set()),
    ],
)
def test_a_corpus_without_neutral_or_without_others_has_no_mostly_neutral_streams(emotions, kinds):
    clips = clips_of('ab', emotions, n=8)
    assert {stream.kind for stream in draw_streams(clips)} == kinds
    with pytest.raises(SerError, match='^mine: nothing can be chosen on it: no speaker has eight'):
        draw_streams_to_choose_by('mine', clips)


def test_speakers_without_all_expressions_or_enough_clips_have_no_streams():
    clips = [
        *clips_of('a'),
        *clips_of('b', ('neutral', 'happy', 'sad')),
        *clips_of('c', n=1),
    ]
    assert {s.voice for s in draw_streams(clips)} == {'mine:a'}
    many = clips_of([f's{n}' for n in range(N_SPEAKERS + 5)])
    assert len({s.voice for s in draw_streams(many)}) == N_SPEAKERS


# --- Scores


@pytest.fixture(scope='module')
def clips(speech, segments, tmp_path_factory):
    """Clips of one utterance each, and one without speech."""
    folder = tmp_path_factory.mktemp('clips')
    found = []
    longest = sorted(segments, key=lambda s: s.start - s.end)[:4]
    for i, segment in enumerate(longest):
        soundfile.write(folder / f'{i}.wav', speech[segment.start : segment.end], SAMPLE_RATE)
        found.append(Clip(folder / f'{i}.wav', 'happy', 'anna', 'mine'))
    soundfile.write(folder / 'silent.wav', np.zeros(16_000), SAMPLE_RATE)
    return [*found, Clip(folder / 'silent.wav', 'happy', 'anna', 'mine')]


@pytest.fixture(scope='module')
def utterances(by_voice, clips):
    return find_utterances(by_voice, clips)


def test_utterances_are_those_of_the_stream(by_voice, clips, utterances):
    results = predict_clips(by_voice, clips, 'cpu')
    assert [len(found) for found in utterances] == [len(r.decisions) for r in results]
    assert utterances[-1] == []


def test_utterances_are_read_from_the_cache(by_voice, clips, utterances, tmp_path, monkeypatch):
    first = find_utterances(by_voice, clips, tmp_path)
    monkeypatch.setattr('ser_ros.training.evaluation.voice_streams.Voice', None)
    for again in (first, find_utterances(by_voice, clips, tmp_path)):
        for found, expected in zip(again, utterances):
            assert len(found) == len(expected)
            for one, other in zip(found, expected):
                assert all(map(torch.equal, one.features, other.features))


def finals(recognizer, clip):
    return [e for e in stream_sound(recognizer, read_audio(clip.path)) if e.is_final]


def probabilities(scores):
    exponentials = np.exp(scores - scores.max())
    return exponentials / exponentials.sum()


def test_cold_scores_are_those_of_an_unknown_voice(by_voice, clips, utterances):
    scores = cold_scores(by_voice, utterances, CPU)
    assert np.isnan(scores[-1]).all()
    for clip, score in zip(clips[:-1], scores):
        (estimate,) = finals(Recognizer(by_voice, 'cpu'), clip)
        np.testing.assert_allclose(probabilities(score), estimate.unadapted, atol=1e-5)


@pytest.mark.parametrize('name', ['by_voice', 'by_answers'])
def test_known_scores_are_those_of_a_voice_that_becomes_known(request, name, clips):
    bundle = request.getfixturevalue(name)
    utterances = find_utterances(bundle, clips)
    order = [(0, 1, 4, 2, 3, 0, 2)[i % 7] for i in range(N_UTTERANCES)]
    known = known_scores(bundle, utterances, [VoiceStream('balanced', 'a', tuple(order))], CPU)
    adapted = adapt(known, bundle.info.adaptation.memory)[0]
    adapted = adapted + prior_shift(bundle.info.class_names, 0.3, 1.0)
    recognizer, n_earlier = Recognizer(bundle, 'cpu'), 0
    for i, score in zip(order[:12], adapted):
        estimates = finals(recognizer, clips[i])
        if i == 4:
            assert estimates == []
            assert np.isnan(score).all()
            continue
        assert estimates[0].n_utterances == n_earlier
        np.testing.assert_allclose(probabilities(score), estimates[0].probabilities, atol=1e-5)
        n_earlier += 1
    assert n_earlier > 8

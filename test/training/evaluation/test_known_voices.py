"""Voices that are known by their earlier utterances, among all classes."""

import dataclasses

import numpy as np
import pytest
import soundfile

from ser_ros.audio import SAMPLE_RATE
from ser_ros.training.data.corpora import Clip
from ser_ros.training.evaluation.clip_result import to_records
from ser_ros.training.evaluation.known_voices import accuracies_by_answers, evaluate_known_voices
from ser_ros.training.evaluation.prediction import predict_clips
from ser_ros.training.evaluation.voice_streams import (
    N_DRAWS,
    N_KNOWN,
    N_UTTERANCES,
    draw_streams_of_all_classes,
)


@pytest.fixture(scope='module')
def clips(speech, segments, tmp_path_factory):
    """Twelve clips of one utterance each, of four sounds and as many classes."""
    folder = tmp_path_factory.mktemp('clips')
    longest = sorted(segments, key=lambda s: s.start - s.end)[:4]
    emotions = ('neutral', 'happy', 'fearful', 'disgust')
    found = []
    for i in range(12):
        segment = longest[i % 4]
        path = folder / f'{i}.wav'
        soundfile.write(path, speech[segment.start : segment.end], SAMPLE_RATE)
        found.append(Clip(path, emotions[i // 3], 'anna', 'mine'))
    return found


def test_each_clip_of_a_voice_comes_before_one_is_repeated(clips):
    streams = draw_streams_of_all_classes(clips)
    assert len(streams) == N_DRAWS
    for stream in streams:
        assert len(stream.clips) == N_UTTERANCES
        for start in (0, 12, 24):
            assert sorted(stream.clips[start : start + 12]) == list(range(12))
    assert streams[0].clips != streams[1].clips
    assert streams == draw_streams_of_all_classes(clips)


def test_metrics_are_those_of_later_utterances(by_voice, clips):
    metrics = evaluate_known_voices(by_voice, clips, 'cpu')
    assert metrics['speakers'] == 1
    assert metrics['adapted'] != metrics['unadapted']
    later = [i for s in draw_streams_of_all_classes(clips) for i in s.clips[N_KNOWN:]]
    names = by_voice.info.class_names
    results = predict_clips(by_voice, clips, 'cpu')
    is_right = [names[result.score.argmax()] == result.clip.emotion for result in results]
    assert metrics['unadapted']['clips'] == metrics['adapted']['clips'] == len(later)
    assert metrics['unadapted']['accuracy'] == pytest.approx(np.mean([is_right[i] for i in later]))


def test_bundles_that_do_not_adapt_and_voices_of_few_clips_have_none(by_voice, bundle, clips):
    assert evaluate_known_voices(bundle, clips, 'cpu') is None
    assert evaluate_known_voices(by_voice, clips[:N_KNOWN], 'cpu') is None
    two = [dataclasses.replace(clip, speaker=str(i % 2)) for i, clip in enumerate(clips)]
    assert evaluate_known_voices(by_voice, two, 'cpu') is None


def test_by_answers_stored_predictions_are_enough(by_answers, clips):
    metrics = evaluate_known_voices(by_answers, clips, 'cpu')
    names, memory = by_answers.info.class_names, by_answers.info.adaptation.memory
    records = to_records(predict_clips(by_answers, clips, 'cpu'), names)
    expected = tuple(metrics[w]['unweighted_accuracy'] for w in ('adapted', 'unadapted'))
    assert accuracies_by_answers(records, names, memory) == pytest.approx(expected)
    # A clip without speech is wrong and teaches nothing.
    silent = [{**records[0], 'probabilities': None}, *records[1:]]
    adapted, unadapted = accuracies_by_answers(silent, names, memory)
    assert 0 <= adapted <= 1
    assert unadapted <= expected[1]
    assert accuracies_by_answers(records[:N_KNOWN], names, memory) is None

"""Files are complete or absent; an error of a write is one line."""

import os
import resource
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ser_ros import SerError
from ser_ros.audio.sources import FileSource, read_audio
from ser_ros.bundle import load_bundle
from ser_ros.commands.arguments import path_of
from ser_ros.files import user_path, write_atomically
from ser_ros.stream.enrolment import load_enrolment
from ser_ros.training.data.corpora import read_corpus
from ser_ros.training.recipe import load_recipe


def test_text_and_bytes_replace_the_file(tmp_path):
    path = tmp_path / 'kept.txt'
    write_atomically(path, 'größer\n')
    assert path.read_bytes() == 'größer\n'.encode()
    write_atomically(path, b'\x00\xff')
    assert path.read_bytes() == b'\x00\xff'
    assert [file.name for file in tmp_path.iterdir()] == ['kept.txt']


def test_others_may_read_what_the_umask_allows(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / 'kept.txt', 'new')
        write_atomically(tmp_path / 'private.txt', 'new', mode=0o600)
    finally:
        os.umask(before)
    assert (tmp_path / 'kept.txt').stat().st_mode & 0o777 == 0o640
    assert (tmp_path / 'private.txt').stat().st_mode & 0o777 == 0o600


def test_the_target_of_a_link_is_written_and_the_link_stays(tmp_path):
    """An installation may consist of links: recorded metrics must reach the sources."""
    (tmp_path / 'source').mkdir()
    source, link = tmp_path / 'source' / 'kept.txt', tmp_path / 'link.txt'
    source.write_text('old')
    link.symlink_to(source)
    write_atomically(link, 'new')
    assert link.is_symlink()
    assert source.read_text() == 'new'
    assert [file.name for file in source.parent.iterdir()] == ['kept.txt']


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / 'kept.txt'
    write_atomically(path, 'old')
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(SerError, match='kept.txt cannot be written: File too large'):
            write_atomically(path, bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == 'old'
    assert [file.name for file in tmp_path.iterdir()] == ['kept.txt']


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(SerError, match='nowhere/new.txt cannot be written: No such file'):
        write_atomically(tmp_path / 'nowhere' / 'new.txt', 'text')


@pytest.mark.parametrize('name', ['~/a b.wav', '~', 'plain.wav', '/at/once.wav', './~/odd.wav'])
def test_a_path_as_a_user_writes_it(name, monkeypatch):
    monkeypatch.setenv('HOME', '/home/ann')
    expected = name.replace('~', '/home/ann', 1) if name.startswith('~') else name
    assert user_path(name) == Path(expected)


def test_the_home_of_nobody_is_a_file_name():
    assert user_path('~no_such_user_here/x') == Path('~no_such_user_here/x')


def test_every_reader_of_a_file_expands_the_home_folder(monkeypatch, tmp_path, by_voice):
    """Where no shell does: parameters, recipes, KEY=PATH, and an option with an equals sign."""
    monkeypatch.setenv('HOME', str(tmp_path))
    readers = (
        lambda: load_bundle('~/x.safetensors'),
        lambda: read_audio('~/x.wav'),
        lambda: FileSource('~/x.wav'),
        lambda: load_enrolment('~/x.json', by_voice),
        lambda: read_corpus('~/x'),
        lambda: load_recipe('~/x.yaml'),
    )
    for read in readers:
        with pytest.raises(SerError, match=str(tmp_path) + '/x|sound file .~/x.wav'):
            read()
    soundfile.write(tmp_path / 'x.wav', np.zeros(100), 16_000)
    assert len(read_audio('~/x.wav')) == 100
    assert path_of('~/x') == tmp_path / 'x'

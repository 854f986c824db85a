"""Files are complete or absent; an error of a write is one line."""

import resource

import pytest

from ser_ros import SerError
from ser_ros.files import write_atomically


def test_text_and_bytes_replace_the_file(tmp_path):
    path = tmp_path / 'kept.txt'
    write_atomically(path, 'größer\n')
    assert path.read_bytes() == 'größer\n'.encode()
    write_atomically(path, b'\x00\xff')
    assert path.read_bytes() == b'\x00\xff'
    assert [file.name for file in tmp_path.iterdir()] == ['kept.txt']


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

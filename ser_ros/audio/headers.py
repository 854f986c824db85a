"""What the header of a sound file says about its length, and the header that it should have.

A recorder writes the length when it is closed. One that was killed, or that wrote into a pipe,
leaves 0 or the largest number; libsndfile then finds no sound, or more than there is.
"""

import dataclasses
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Optional

LARGEST = 0x7FFF0000
"""Bytes; 32-bit lengths from here on come from writers that did not know the length."""
LARGEST_64 = 1 << 62

_W64_TAIL = bytes.fromhex('f3acd3118cd100c04f8edb8a')
"""End of the GUID of a Wave64 chunk; its first four bytes are the name that WAV has."""


@dataclass(frozen=True)
class Header:
    """The length that a header states, in bytes or in samples, and how to correct it."""

    promised: Optional[int] = None
    """Bytes of sound, for FLAC samples of each channel; None if it states no length."""
    held: Optional[int] = None
    """Bytes of sound that the file has; None for FLAC, where only decoding shows it."""
    edits: tuple[tuple[int, bytes], ...] = ()
    """Position in the file and bytes to read there instead, so that all sound is found."""
    begin: int = 0
    """Where the file has to begin: libsndfile takes a tag before a WAV for a part of its length."""
    end: Optional[int] = None
    """Where the file has to end, so that what follows the sound is not taken for sound."""
    was_closed: bool = True
    """Whether the recorder has written the length."""


def read_header(file: BinaryIO) -> Optional[Header]:
    """The header of WAV, RF64, Wave64, AIFF, AU, CAF, FLAC and Ogg; None for any other file."""
    try:
        return _header(file)
    except (struct.error, OverflowError):  # the file ends within a number, or it is too large
        return None


def _header(file: BinaryIO) -> Optional[Header]:
    length = file.seek(0, os.SEEK_END)
    begin = _after_id3(file)
    magic = _read(file, begin, 16)
    if magic[:4] in (b'RIFF', b'RIFX', b'RF64') and magic[8:12] == b'WAVE':
        header = _riff(file, begin, length, '>' if magic[:4] == b'RIFX' else '<')
        return header and dataclasses.replace(header, begin=begin)
    if magic[:4] == b'FORM' and magic[8:12] in (b'AIFF', b'AIFC'):
        header = _aiff(file, begin, length)
        return header and dataclasses.replace(header, begin=begin)
    if magic[:4] == b'riff':
        return _wave64(file, length)
    if magic[:4] in (b'.snd', b'dns.'):
        start, size = struct.unpack('>II' if magic[:4] == b'.snd' else '<II', magic[4:12])
        code = '>I' if magic[:4] == b'.snd' else '<I'
        return _sized(file, start, size, length, 8, code)
    if magic[:4] == b'caff':
        return _caf(file, length)
    if magic[:4] == b'fLaC':
        return _flac(file, begin)
    if magic[:4] == b'OggS':
        return Header(was_closed=_ogg_has_end(file, length))
    return None


def _read(file: BinaryIO, position: int, n: int) -> bytes:
    file.seek(position)
    return file.read(n)


def _after_id3(file: BinaryIO) -> int:
    """Where the file begins behind a tag of ID3 version 2, whose length has 7 bits a byte."""
    tag = _read(file, 0, 10)
    if tag[:3] != b'ID3' or len(tag) < 10:
        return 0
    return 10 + sum((byte & 0x7F) << 7 * (3 - i) for i, byte in enumerate(tag[6:10]))


def _chunks(file: BinaryIO, position: int, code: str) -> Iterator[tuple[bytes, int, int]]:
    """(name, start of the content, size) of chunks of four bytes and a size."""
    n = 4 + struct.calcsize(code)
    while len(head := _read(file, position, n)) == n and _is_name(head[:4]):
        size = struct.unpack(code, head[4:])[0]
        yield head[:4], position + n, size
        # Chunks begin at even positions, but in CAF.
        position += n + max(0, size) + (size % 2 if code[1] == 'I' else 0)


def _is_name(name: bytes) -> bool:
    return len(name) == 4 and all(0x20 <= byte < 0x7F for byte in name)


def _riff(file: BinaryIO, begin: int, length: int, order: str) -> Optional[Header]:
    field_64, size_64 = None, 0
    for name, start, size in _chunks(file, begin + 12, f'{order}I'):
        if name == b'ds64':
            field_64, size_64 = start + 8, struct.unpack('<Q', _read(file, start + 8, 8))[0]
        elif name == b'data' and field_64 is not None:
            # Of RF64 the 32-bit size says nothing; libsndfile compares the number of samples, too.
            edits = ((start - 4, b'\xff' * 4), (field_64 + 8, bytes(8)))
            return _sized(file, start, size_64, length, field_64, '<Q', edits)
        elif name == b'data':
            return _sized(file, start, size, length, start - 4, f'{order}I')
    return None


def _aiff(file: BinaryIO, begin: int, length: int) -> Optional[Header]:
    for name, start, size in _chunks(file, begin + 12, '>I'):
        if name == b'SSND':
            return _sized(file, start + 8, size, length, start - 4, '>I', before=8)
    return None


def _caf(file: BinaryIO, length: int) -> Optional[Header]:
    for name, start, size in _chunks(file, 8, '>q'):
        if name == b'data':
            header = _sized(file, start + 4, size, length, start - 8, '>q', before=4)
            if header.was_closed and header.promised > header.held:
                # libsndfile would leave out the last samples.
                edits = ((start - 8, struct.pack('>q', header.held + 4)),)
                header = dataclasses.replace(header, edits=edits)
            return header
    return None


def _wave64(file: BinaryIO, length: int) -> Optional[Header]:
    position = 40
    while len(head := _read(file, position, 24)) == 24 and head[4:16] == _W64_TAIL:
        size = struct.unpack('<Q', head[16:])[0]
        if head[:4] == b'data':
            start = position + 24
            header = _sized(file, start, size, length, start - 8, '<Q', before=24)
            if header.promised is None or not start < start + header.promised < length:
                return header
            # libsndfile reads to the end of the file, whatever comes there.
            return dataclasses.replace(header, end=start + header.promised)
        position += max(24, size + -size % 8)
    return None


def _sized(
    file: BinaryIO,
    start: int,
    size: int,
    length: int,
    field: int,
    code: str,
    edits: tuple[tuple[int, bytes], ...] = (),
    before: int = 0,
) -> Header:
    """The header of a file whose sound is at `start`; `size`, which counts `before`, is at `field`."""
    held, promised = max(0, length - start), size - before
    largest = LARGEST if code[1] == 'I' else LARGEST_64
    is_open = promised > max(held, largest) or (
        promised <= 0 and held > 0 and not _ends_in_chunks(file, start, length, code)
    )
    if not is_open:
        return Header(max(0, promised), held)
    true = min(held + before, 0xFFFFFFFF) if code[1] == 'I' else held + before
    edits = ((field, struct.pack(code, true)), *edits)
    return Header(None, held, edits, was_closed=False)


def _ends_in_chunks(file: BinaryIO, position: int, length: int, code: str) -> bool:
    """Whether chunks, and nothing else, are between here and the end of the file."""
    for _, start, size in _chunks(file, position, code):
        position = start + size
    return length - 1 <= position <= length


def _flac(file: BinaryIO, begin: int) -> Header:
    # STREAMINFO is the first block; the number of samples are 36 bits in it.
    position = begin + 4 + 4 + 13
    field = _read(file, position, 5)
    promised = (field[0] & 0x0F) << 32 | int.from_bytes(field[1:], 'big') if len(field) == 5 else 0
    is_open = not 0 < promised < 1 << 35
    return Header(None if is_open else promised, was_closed=not is_open)


def _ogg_has_end(file: BinaryIO, length: int) -> bool:
    """Whether the last page says that the stream ends there, and is complete."""
    tail = _read(file, max(0, length - 0x20000), 0x20000)
    page = tail.rfind(b'OggS\0')
    head = tail[page : page + 27 + 255]
    if page < 0 or len(head) < 27:
        return False
    segments = head[27 : 27 + head[26]]
    is_complete = len(tail) - page >= 27 + head[26] + sum(segments)
    return bool(head[5] & 4) and len(segments) == head[26] and is_complete

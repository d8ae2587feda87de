"""Silence as an Ogg Opus file, so that a simulated voice message is a real one to any decoder."""

import struct

_FRAME = b"\xf8\xff\xfe"
"""20 ms of silence: CELT, full band, mono (RFC 6716 §3.1)."""

_FRAMES_PER_PAGE = 50
_SAMPLES_PER_FRAME = 960  # at 48 kHz, which is Opus's clock in Ogg whatever the input rate
_SERIAL = 0x48494C4F


def silence(*, seconds: float) -> bytes:
    """Return a mono Ogg Opus file of about this length (RFC 7845), always the same bytes."""
    head = b"OpusHead" + struct.pack("<BBHIhB", 1, 1, 0, 48_000, 0, 0)
    tags = b"OpusTags" + struct.pack("<I", 9) + b"simulator" + struct.pack("<I", 0)
    frames = max(1, round(seconds * 50))
    pages = [_page([head], 0, 0, first=True), _page([tags], 0, 1)]
    for start in range(0, frames, _FRAMES_PER_PAGE):
        end = min(frames, start + _FRAMES_PER_PAGE)
        granule = end * _SAMPLES_PER_FRAME
        packets = [_FRAME] * (end - start)
        pages.append(_page(packets, granule, len(pages), last=end == frames))
    return b"".join(pages)


def _page(
    packets: list[bytes], granule: int, number: int, *, first: bool = False, last: bool = False
) -> bytes:
    """Return one Ogg page of packets shorter than 255 bytes (RFC 3533 §6)."""
    flags = (2 if first else 0) | (4 if last else 0)
    lengths = bytes(map(len, packets))
    fixed = struct.pack("<4sBBqIII", b"OggS", 0, flags, granule, _SERIAL, number, 0)
    page = fixed + bytes([len(lengths)]) + lengths + b"".join(packets)
    return page[:22] + struct.pack("<I", _crc(page)) + page[26:]


def _crc(page: bytes) -> int:
    """CRC-32 with polynomial 0x04C11DB7, not reflected, starting from 0 (RFC 3533 §6)."""
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1) ^ (0x104C11DB7 if crc & 0x80000000 else 0)
    return crc

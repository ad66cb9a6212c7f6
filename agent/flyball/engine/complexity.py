"""How much there is to see in a picture, in tens of microseconds.

image tensor -> entropy of its green channel | size of its file per pixel -> Complexity, or None

Reads headers and a thousand pixels; decodes nothing.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from typing import Literal, NamedTuple

from flyball.ports import Tensor


class Complexity(NamedTuple):
    """How much there is to see in a picture. The two units do not compare, nor do files of different encoders."""

    unit: Literal["entropy-bits", "file-bits-per-pixel"]
    value: float


def complexity(image: Tensor) -> Complexity | None:
    """Of UINT8 [h, w, 3] the entropy of the green channel (nearest to luma), 0..8 bits; of an encoded image the size
    of its file per pixel. None where that says nothing or the header is not understood. Some 30 us, whatever size."""
    data = memoryview(image.data).cast("B")
    if image.datatype == "UINT8" and len(image.shape) == 3 and image.shape[2] == 3:
        height, width, _ = image.shape
        if 0 < 3 * height * width == len(data):
            return Complexity("entropy-bits", _entropy_bits(data, height * width, width))
    elif image.datatype == "BYTES" and len(data) > 4:
        pixels = _pixels(data[4:])
        if pixels:
            return Complexity("file-bits-per-pixel", 8 * (len(data) - 4) / pixels)
    return None


_SAMPLES = 1000
_C_LOG2_C = (0.0, *(count * math.log2(count) for count in range(1, _SAMPLES + 1)))


def _entropy_bits(data: memoryview, pixels: int, width: int) -> float:
    """Of at most _SAMPLES green values. A step that shares a factor with the width would see a few columns only."""
    step = -(-pixels // _SAMPLES)
    while math.gcd(step, width) > 1:
        step += 1
    sample = bytes(data[1 :: 3 * step])
    counts = Counter(sample).values()
    return math.log2(len(sample)) - sum(map(_C_LOG2_C.__getitem__, counts)) / len(sample)


def _pixels(data: memoryview) -> int:
    """Width times height by the header of a compressed image; 0 when it is none of those known or cut off."""
    head = bytes(data[:16])
    try:
        if head[:8] == b"\x89PNG\r\n\x1a\n":
            width, height = struct.unpack_from(">II", data, 16)
        elif head[:6] in (b"GIF87a", b"GIF89a"):
            width, height = struct.unpack_from("<HH", data, 6)
        elif head[:2] == b"\xff\xd8":
            width, height = _jpeg_size(data)
        elif head[:4] == b"RIFF" and head[8:12] == b"WEBP":
            width, height = _webp_size(data, head[12:16])
        elif head[:2] == b"BM":
            width, height = _bmp_size(data)
        else:
            return 0
    except struct.error:
        return 0
    return int(width * height)


def _jpeg_size(data: memoryview) -> tuple[int, int]:
    """From the frame header (ITU-T T.81, B.2.2), which Exif and colour profiles may stand before."""
    at = 2
    for _ in range(100):  # segments and fill bytes; a hostile file could hold millions
        marker, code, length = struct.unpack_from(">BBH", data, at)
        if marker != 0xFF:
            break
        if code == 0xFF:  # a fill byte
            at += 1
        elif 0xC0 <= code <= 0xCF and code not in (0xC4, 0xC8, 0xCC):  # SOFn, not DHT, JPG, DAC
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        else:
            at += 2 + length
    return 0, 0


def _webp_size(data: memoryview, chunk: bytes) -> tuple[int, int]:
    """RFC 9649, 2.5 to 2.7: lossy, lossless, extended."""
    if chunk == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk == b"VP8X":
        low_w, high_w, low_h, high_h = struct.unpack_from("<HBHB", data, 24)
        return (high_w << 16 | low_w) + 1, (high_h << 16 | low_h) + 1
    return 0, 0


def _bmp_size(data: memoryview) -> tuple[int, int]:
    """Of run-length encoded ones (BI_RLE8, BI_RLE4): the size of an uncompressed file tells nothing of the picture."""
    header_size, width, height, _, _, compression = struct.unpack_from("<IiiHHI", data, 14)
    return (width, abs(height)) if header_size >= 40 and compression in (1, 2) and width > 0 else (0, 0)

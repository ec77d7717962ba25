"""What `ethtool` asks of the kernel, as ioctls: numbers of rings, channels, coalescing and pause, and features.

The structs are those of linux/ethtool.h. Failures are OSErrors.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import socket
import struct

import msgspec

_SIOCETHTOOL = 0x8946
_GSTRINGS = 0x1B
_GSSET_INFO = 0x37
_GFEATURES = 0x3A
_SFEATURES = 0x3B
_FEATURE_NAMES = 4  # ETH_SS_FEATURES
_NAME_BYTES = 32  # ETH_GSTRING_LEN


class Group(msgspec.Struct, frozen=True):
    """Settings that are read and written as one struct of 32-bit numbers."""

    flag: str  # of ethtool(8), to set
    get: int
    set: int
    fields: tuple[str, ...]  # as ethtool(8) calls them, in the struct's order; "max X" is the most that X takes


GROUPS = {
    "coalesce": Group(
        "-C",
        0x0E,
        0x0F,
        (
            "rx-usecs", "rx-frames", "rx-usecs-irq", "rx-frames-irq",
            "tx-usecs", "tx-frames", "tx-usecs-irq", "tx-frames-irq",
            "stats-block-usecs", "adaptive-rx", "adaptive-tx",
            "pkt-rate-low", "rx-usecs-low", "rx-frames-low", "tx-usecs-low", "tx-frames-low",
            "pkt-rate-high", "rx-usecs-high", "rx-frames-high", "tx-usecs-high", "tx-frames-high",
            "sample-interval",
        ),
    ),
    "ring": Group(
        "-G", 0x10, 0x11, ("max rx", "max rx-mini", "max rx-jumbo", "max tx", "rx", "rx-mini", "rx-jumbo", "tx")
    ),
    "pause": Group("-A", 0x12, 0x13, ("autoneg", "rx", "tx")),
    "channels": Group(
        "-L", 0x3C, 0x3D, ("max rx", "max tx", "max other", "max combined", "rx", "tx", "other", "combined")
    ),
}  # fmt: skip


class Feature(msgspec.Struct, frozen=True):
    """One feature of an interface."""

    on: bool
    fixed: bool  # the driver lets nobody change it


def get_numbers(interface: str, group: Group) -> dict[str, int]:
    """Read the settings of a group."""
    form = f"={len(group.fields) + 1}I"
    answer = _ioctl(interface, struct.pack(form, group.get, *[0] * len(group.fields)))
    return dict(zip(group.fields, struct.unpack(form, answer)[1:], strict=True))


def set_number(interface: str, group: Group, field: str, value: int) -> None:
    """Write one setting of a group; the others stay."""
    if not 0 <= value < 1 << 32:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    numbers = get_numbers(interface, group)
    numbers[field] = value
    _ioctl(interface, struct.pack(f"={len(numbers) + 1}I", group.set, *numbers.values()))


def get_features(interface: str) -> dict[str, Feature]:
    """Read the features of an interface, by the kernel's names."""
    names = _feature_names(interface)
    blocks = (len(names) + 31) // 32
    answer = _ioctl(interface, struct.pack("=II", _GFEATURES, blocks) + bytes(16 * blocks))
    words = struct.unpack_from(
        f"={4 * blocks}I", answer, 8
    )  # a block: available, requested, active, never changed
    features = {}
    for i, name in enumerate(names):
        available, _, active, never = words[i // 32 * 4 : i // 32 * 4 + 4]
        bit = 1 << i % 32
        if name:  # there are gaps
            features[name] = Feature(bool(active & bit), not available & bit or bool(never & bit))
    return features


def set_features(interface: str, wanted: dict[str, bool]) -> None:
    """Switch features, by the kernel's names; the others stay. What depends on them may change with them."""
    names = _feature_names(interface)
    blocks = (len(names) + 31) // 32
    words = [0] * 2 * blocks  # a block: valid, requested
    for name, on in wanted.items():
        i = names.index(name)
        words[i // 32 * 2] |= 1 << i % 32
        words[i // 32 * 2 + 1] |= on << i % 32
    _ioctl(interface, struct.pack(f"={2 + len(words)}I", _SFEATURES, blocks, *words))


def _feature_names(interface: str) -> list[str]:
    answer = _ioctl(interface, struct.pack("=IIQI", _GSSET_INFO, 0, 1 << _FEATURE_NAMES, 0))
    (count,) = struct.unpack_from("=I", answer, 16)
    answer = _ioctl(interface, struct.pack("=III", _GSTRINGS, _FEATURE_NAMES, count) + bytes(_NAME_BYTES * count))
    texts = (answer[12 + i * _NAME_BYTES : 12 + (i + 1) * _NAME_BYTES] for i in range(count))
    return [text.split(b"\0")[0].decode() for text in texts]


def _ioctl(interface: str, data: bytes) -> bytes:
    buffer = array.array("B", data)
    request = struct.pack("16sP", interface.encode(), buffer.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        fcntl.ioctl(asked, _SIOCETHTOOL, request)
    return buffer.tobytes()

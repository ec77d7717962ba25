"""The layouts are what other programs and old ledgers rely on: a change must be meant, and raises VERSION."""

import numpy as np
import pytest

from tvops.engine import records

SIZES = {
    "COMMAND": 112,
    "EVENT": 72,
    "TRADE": 40,
    "TICK": 64,
    "DEPTH": 40,
    "BAR": 64,
    "ORDER": 128,
    "POSITION": 32,
}


@pytest.mark.parametrize("name, size", SIZES.items())
def test_sizes(name: str, size: int) -> None:
    assert records.VERSION == 1
    dtype = records.DTYPES[records.RecordType[name]]
    assert dtype.itemsize == size
    assert dtype.itemsize % 8 == 0
    assert not dtype.isalignedstruct


@pytest.mark.parametrize("dtype", records.DTYPES.values())
def test_every_number_is_little_endian_and_naturally_aligned(dtype: np.dtype) -> None:
    for name in dtype.names or ():
        field, offset = dtype.fields[name][:2]  # type: ignore[index]
        if field.kind in "iu":
            assert field.newbyteorder("<") == field
            assert offset % field.itemsize == 0, name

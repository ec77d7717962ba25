"""`/dev/cpu_dma_latency`: how long a CPU may take to wake up, for as long as somebody holds the file open.

The wish is gone with the file (Documentation/power/pm_qos_interface), so it belongs to a process that lives as
long as it is wanted: the supervisor.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from tvops.engine.stack_tuning import Effect, EffectState

DEVICE = Path("/dev/cpu_dma_latency")
_VALUE = struct.Struct("=i")


class LatencyHold:
    """Holds one wish, from `acquire` to `release`."""

    def __init__(self, device: Path = DEVICE) -> None:
        self._device = device
        self._file: int | None = None

    def acquire(self, microseconds: int) -> Effect:
        """Hold the latency below ``microseconds`` from now on; tell what came of it."""
        got, state, reason = "", "applied", ""
        try:
            self._file = os.open(self._device, os.O_RDWR | os.O_CLOEXEC)
            os.write(self._file, _VALUE.pack(microseconds))
            # what all holders together have wished for: the least of it
            (in_force,) = _VALUE.unpack(os.pread(self._file, _VALUE.size, 0))
            got = str(in_force)
            if in_force > microseconds:
                state, reason = "clamped", f"the kernel holds {in_force} us"
            elif in_force < microseconds:
                reason = f"somebody else holds {in_force} us"
                got = str(microseconds)
        except FileNotFoundError:
            state, reason = "unsupported", f"there is no {self._device}"
        except PermissionError:
            state, reason = "denied", f"{self._device}: only root may open it, or who owns it by a udev rule"
        except (OSError, struct.error) as error:
            state, reason = "unsupported", f"{self._device}: {error}"
        if state != "applied":
            self.release()
        return _effect(str(microseconds), got, state, reason)  # type: ignore[arg-type]

    def release(self) -> None:
        """Let the CPUs sleep as deep as before."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _effect(wanted: str, got: str, state: EffectState, reason: str) -> Effect:
    return Effect(
        kind="held", name=str(DEVICE), target="supervisor", wanted=wanted, got=got, state=state, reason=reason,
        pid=os.getpid(),
    )  # fmt: skip

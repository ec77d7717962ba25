"""What an experiment leaves behind: every figure, how it was come by, and what was not measured and why."""

from __future__ import annotations

import msgspec

from tvops.statistics import Verdict
from tvops.tuning.fingerprint import Fingerprint

SCHEMA = 1
"""Version of the JSON form; a change of a field's meaning raises it."""


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One percentile of one probe, before and after a change. Times in ns."""

    probe: str
    percentile: float
    pairs: int  # of blocks, one of A and one of B each
    samples: int  # that a block's percentile was taken of
    before: float  # median over the blocks of A
    after: float  # median over the blocks of B
    difference: float  # trimmed mean of the paired differences B - A: below 0 is faster
    low: float  # 95 % interval around the difference
    high: float
    p: float  # exact signed-rank test
    p_corrected: float  # Holm, over all figures of all knobs
    detectable: float  # the smallest effect that would have been found, four times in five
    floor: float  # what A/A differed by, at most
    most_before: float  # the largest sample of A
    most_after: float
    verdict: Verdict


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What one change did: a knob at all its places, or several knobs together."""

    knob: str
    knobs: tuple[str, ...]  # ids of the knobs that were flipped
    places: int
    change: str  # "0 → 50"
    verdict: Verdict  # hurts where any figure does, else helps where any does
    figures: tuple[Figure, ...]


class ProbeSetup(msgspec.Struct, frozen=True):
    """What a probe did."""

    name: str
    description: str
    samples: int  # in a block


class NotMeasured(msgspec.Struct, frozen=True):
    """A knob or a probe that was left out."""

    what: str
    reason: str


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """A whole experiment."""

    schema: int = SCHEMA
    version: str  # of tvops
    started: str  # UTC
    seconds: float  # that it took
    budget_seconds: float
    fingerprint: Fingerprint
    load: tuple[float, float]  # load average of a minute, before and after
    stolen_percent: float  # CPU time that the hypervisor gave to others meanwhile
    seed: int
    pairs: int  # that each knob got
    settle_seconds: float  # between a change and the first sample
    cpus: tuple[int, ...]  # of this process and of its partners; empty: wherever the scheduler put them
    probes: tuple[ProbeSetup, ...]
    control: tuple[Figure, ...]  # A/A: nothing was changed
    measured: tuple[Measured, ...]
    not_measured: tuple[NotMeasured, ...]
    sent: tuple[str, ...]  # what was sent to servers that are not the experiment's own
    warnings: tuple[str, ...]


def helpful(evidence: Evidence) -> set[str]:
    """Give the ids of the knobs that helped, each by itself."""
    return {m.knob for m in evidence.measured if m.verdict == "helps" and m.knobs == (m.knob,)}

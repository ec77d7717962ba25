"""From samples to verdicts: all figures of all changes are judged at once, against the A/A control."""

from __future__ import annotations

import os
from collections.abc import Sequence

import msgspec
import numpy as np

from tvops.statistics import NONE, Comparison, Verdict, compare, judge, noise_floor
from tvops.tuning.evidence.experiment import CONTROL, Experiment
from tvops.tuning.evidence.records import Evidence, Figure, Measured
from tvops.tuning.evidence.treatments import Treatment

BUSY_LOAD = 0.5
"""Load average for each CPU, beyond our own, above which a report says that the host was busy."""

STOLEN_PERCENT = 2.0
"""Share of the CPU time that a hypervisor may take before a report says so."""

_Key = tuple[str, float]  # probe, percentile


def conclude(experiment: Experiment, seed: int) -> tuple[tuple[Figure, ...], tuple[Measured, ...]]:
    """Judge all figures of all changes at once; give those of the control and the changes."""
    names = [probe.name for probe in experiment.probes]
    controls = _comparisons(experiment, CONTROL, names, seed)
    floors = {key: noise_floor(control) for key, control in controls.items()}
    found = [(t, _comparisons(experiment, t, names, seed)) for t in experiment.treatments]
    compared = [(t, key, c) for t, comparisons in found for key, c in comparisons.items() if key in floors]
    judged = judge([c for _, _, c in compared], [floors[key] for _, key, _ in compared])
    measured = []
    for treatment, _ in found:
        figures = tuple(
            _figure(experiment, treatment, key, comparison, msgspec.structs.asdict(judgement))
            for (t, key, comparison), judgement in zip(compared, judged, strict=True)
            if t is treatment
        )
        verdicts = {figure.verdict for figure in figures}
        verdict: Verdict = "hurts" if "hurts" in verdicts else "helps" if "helps" in verdicts else NONE
        measured.append(
            Measured(
                knob=treatment.name, knobs=treatment.knobs, places=treatment.places, change=treatment.change,
                verdict=verdict, figures=figures,
            )
        )  # fmt: skip
    own = judge(list(controls.values()), [0.0] * len(controls))
    control = tuple(
        _figure(experiment, CONTROL, key, comparison, {**msgspec.structs.asdict(judgement), "floor": floors[key]})
        for (key, comparison), judgement in zip(controls.items(), own, strict=True)
    )
    return control, tuple(measured)


def _comparisons(
    experiment: Experiment, treatment: Treatment, probes: Sequence[str], seed: int
) -> dict[_Key, Comparison]:
    found = {}
    for probe in probes:
        cell = experiment.cells.get((treatment.name, probe))
        for percent, pairs in cell.percentiles.items() if cell else ():
            if len(pairs) >= 2:
                before, after = np.array(pairs).T
                found[probe, percent] = compare(before, after, seed)
    return found


def _figure(
    experiment: Experiment, treatment: Treatment, key: _Key, comparison: Comparison, judgement: dict[str, object]
) -> Figure:
    probe, percent = key
    most = experiment.cells[treatment.name, probe].most
    values = msgspec.structs.asdict(comparison)
    del values["error"]
    return msgspec.convert(
        {
            **values, **judgement, "probe": probe, "percentile": percent,
            "samples": experiment.schedule.samples[probe], "most_before": most[0], "most_after": most[1],
        },
        Figure,
    )  # fmt: skip


def warnings(evidence: Evidence, experiment: Experiment) -> list[str]:
    """Give what a reader has to know before he believes the figures."""
    if not experiment.treatments:
        return ["nothing was measured: no pending change can be flipped safely on a running host"]
    found = []
    for figure in evidence.control:
        if figure.verdict != NONE:
            found.append(
                f"the A/A control differs in {figure.probe} p{figure.percentile:g} although nothing was changed: "
                "this host was not steady, measure again"
            )
    cpus = os.cpu_count() or 1
    if max(evidence.load) > BUSY_LOAD * cpus + 1:
        found.append(f"the host was busy (load average {max(evidence.load):g}, {cpus} CPUs): small effects drown")
    if evidence.stolen_percent > STOLEN_PERCENT:
        found.append(f"the hypervisor took {evidence.stolen_percent:g} % of the CPU time: small effects drown")
    if not any(figure.percentile > 50 for figure in evidence.control):
        found.append("the time was too short for p99: it takes 1000 samples in each block")
    if evidence.pairs < experiment.schedule.pairs:
        found.append(f"{evidence.pairs} of {experiment.schedule.pairs} planned pairs fitted into the time")
    return found

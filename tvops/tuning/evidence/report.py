"""The evidence as a report in Markdown: what came out first, then how, then every figure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from tvops.statistics import ALPHA, NONE, POWER, RESAMPLES, TAIL
from tvops.tuning.evidence.records import Evidence, Figure, Measured

_ORDER = ("helps", "hurts", NONE)


def render_markdown(evidence: Evidence) -> str:
    """Write the report."""
    parts = [
        "# What the changes do on this host",
        _opening(evidence),
        _summary(evidence),
        *([] if not evidence.warnings else ["## Read this first", _bullets(evidence.warnings)]),
        "## Method",
        _method(evidence),
        "## What this cannot tell",
        _bullets(_CAVEATS),
        "## The A/A control",
        _control(evidence),
        *(part for measured in evidence.measured for part in _one(measured)),
        "## Probes",
        _bullets(f"`{p.name}`: {p.description}; {p.samples} samples a block" for p in evidence.probes) or "None.",
    ]
    if evidence.not_measured:
        parts += ["## Not measured", _not_measured(evidence)]
    if evidence.sent:
        parts += ["## What was sent to servers that are not the experiment's own", _bullets(evidence.sent)]
    parts += ["## The host", _host(evidence)]
    return "\n\n".join(parts) + "\n"


def _opening(evidence: Evidence) -> str:
    return (
        f"tvops {evidence.version}, {evidence.started}, {evidence.seconds:g} s, seed {evidence.seed}, "
        f"host `{evidence.fingerprint.digest[:12]}`."
    )


def _summary(evidence: Evidence) -> str:
    if not evidence.measured:
        return "No change was measured."
    rows = [
        (f"`{m.knob}`", m.change, f"**{m.verdict}**", _essence(m))
        for m in sorted(evidence.measured, key=lambda m: _ORDER.index(m.verdict))
    ]
    return _table(("change", "from → to", "verdict", "where"), rows)


def _essence(measured: Measured) -> str:
    """Name the figures that carry the verdict; without any, the effects that would have been seen."""
    told = [f for f in measured.figures if f.verdict != NONE]
    if told:
        return "; ".join(f"{_name(f)} {_change(f)}" for f in told)
    seen = sorted((f.detectable / f.before, _name(f)) for f in measured.figures if f.percentile == 50 and f.before)
    if not seen:
        return "nothing could be compared"
    (finest, where), (coarsest, at) = seen[0], seen[-1]
    return f"would have been seen from {100 * finest:.1f} % ({where}) or {100 * coarsest:.1f} % ({at}) on"


def _name(figure: Figure) -> str:
    return f"{figure.probe} p{figure.percentile:g}"


def _change(figure: Figure) -> str:
    clear = figure.before > 0 and not figure.low <= 0 <= figure.high
    share = f" ({100 * figure.difference / figure.before:+.1f} %)" if clear else ""
    return f"{_time(figure.difference, True)}{share}"


def _method(evidence: Evidence) -> str:
    lines = (
        f"Each change was switched on and off in {evidence.pairs} pairs of blocks, one as the host is (A) and one "
        "with the change (B). Which came first, and the order of changes and probes, was drawn at random "
        "(seed above).",
        f"A block: change, wait {evidence.settle_seconds * 1000:g} ms, open new sockets and start new partner "
        "processes, sample every probe, undo. Changes went through the journal, so that a crash would have been "
        "undone.",
        _placement(evidence),
        "The control is the same with nothing changed; half of it came first, half between the changes. What it "
        "differed by, at most, is the noise floor.",
        "The effect is the 20 % trimmed mean of the paired differences of a percentile; the interval is a "
        f"{100 * (1 - ALPHA):g} % bootstrap interval ({RESAMPLES} resamples); p is that of the exact signed-rank "
        "test, corrected after Holm for all figures of this report.",
        f"helps or hurts: corrected p below {ALPHA:g}, the interval excludes 0, and the effect is above the noise "
        "floor. A change that makes any figure worse hurts, even where it makes another better.",
        f"The detectable effect is what would be found with a chance of {100 * POWER:g} %. *No measurable effect* "
        "says that the effect, if any, is likely smaller than that; not that there is none.",
        f"A percentile is told where at least {TAIL} samples of a block lie beyond it: p99 takes 1000 samples.",
    )
    return _bullets(lines)


def _placement(evidence: Evidence) -> str:
    if not evidence.cpus:
        return "The scheduler placed both ends of the round trips as it liked."
    own, partners = evidence.cpus
    return f"The measuring process ran on CPU {own}, its partners (and a private server) on CPU {partners}."


_CAVEATS = (
    "The probes use loopback: what a change does to a network card, under load or over hours is not seen.",
    "Figures of different hosts, or of one host on different days, must not be compared; those of a pair may be.",
    "Nothing beyond p99 is judged: on a shared host the far tail is the host's. The largest sample is shown for "
    "orientation only.",
    "What needs a reboot or a restart, or is not safe, was not switched; it is listed below.",
)


def _control(evidence: Evidence) -> str:
    rows = [
        (_name(f), f.samples, f.pairs, _time(f.before), _time(f.difference, True), _interval(f),
         _chance(f.p_corrected), _time(f.floor), _time(max(f.most_before, f.most_after)))
        for f in evidence.control
    ]  # fmt: skip
    return _table(
        ("probe", "samples", "pairs", "median", "difference", "95 % interval", "p", "noise floor", "largest"), rows
    )


def _one(measured: Measured) -> Iterable[str]:
    places = f", {measured.places} places" if measured.places > 1 else ""
    yield f"## {measured.knob}: {measured.verdict}"
    listed = " Knobs: " + ", ".join(f"`{knob}`" for knob in measured.knobs) + "."
    yield f"{measured.change}{places}.{'' if measured.knobs == (measured.knob,) else listed}"
    rows = [
        (_name(f), f.samples, f.pairs, _time(f.before), _time(f.after), _change(f), _interval(f),
         _chance(f.p_corrected), _time(f.detectable), _time(f.most_before), _time(f.most_after), f.verdict)
        for f in measured.figures
    ]  # fmt: skip
    yield _table(
        ("probe", "samples", "pairs", "A", "B", "effect", "95 % interval", "p", "detectable", "largest A",
         "largest B", "verdict"), rows,
    )  # fmt: skip


def _not_measured(evidence: Evidence) -> str:
    reasons: dict[str, list[str]] = {}
    for left in evidence.not_measured:
        reasons.setdefault(left.reason, []).append(f"`{left.what}`")
    return _table(("why", "what"), [(reason, ", ".join(what)) for reason, what in reasons.items()])


def _host(evidence: Evidence) -> str:
    known = msgspec.to_builtins(evidence.fingerprint)
    rows = [(name.replace("_", " "), _shown(value)) for name, value in known.items() if value]
    rows.append(("load average", f"{evidence.load[0]:g} before, {evidence.load[1]:g} after"))
    rows.append(("CPU time taken by the hypervisor", f"{evidence.stolen_percent:g} %"))
    return _table(("", ""), rows)


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key}: {text}" for key, text in value.items())
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _time(nanoseconds: float, signed: bool = False) -> str:
    sign = "+" if signed else ""
    size = abs(nanoseconds)
    if size < 1000:
        return f"{nanoseconds:{sign}.0f} ns"
    return f"{nanoseconds / 1e3:{sign}.2f} us" if size < 1e6 else f"{nanoseconds / 1e6:{sign}.2f} ms"


def _chance(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def _interval(figure: Figure) -> str:
    return f"{_time(figure.low, True)} … {_time(figure.high, True)}"


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")

"""`tvops tune measure`: what each change does on this host, measured back and forth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from tvops.commands.tune import options
from tvops.terminal import say

if TYPE_CHECKING:
    from tvops.tuning.evidence.measuring import Options
    from tvops.tuning.evidence.records import Evidence
    from tvops.tuning.journal import StateDirectory
    from tvops.tuning.model import Item, Profile
    from tvops.tuning.setup import Setup

app = typer.Typer()


@app.command()
def measure(
    profile: str | None = options.PROFILE,
    seconds: float = options.SECONDS,
    together: bool = typer.Option(False, "--together", help="Measure all changes as one, too."),
    seed: int | None = typer.Option(None, min=0, help="Seed of the random order, to repeat an experiment."),
    gateway: str = options.GATEWAY,
    report: Path | None = typer.Option(
        None, metavar="DIR", help="Where the reports go; default: beside the journal."
    ),
    only: list[str] | None = options.ONLY,
    skip: list[str] | None = options.SKIP,
    assignments: list[str] | None = options.ASSIGNMENTS,
    servers: list[str] | None = options.SERVERS,
    wait: float = options.WAIT,
    data_dir: str | None = options.DATA_DIR,
    config: Path | None = options.CONFIG,
    as_json: bool = options.JSON,
) -> int:
    """Measure what the changes of a profile do here.

    Apply, measure, undo, measure, in random order, many times. Only safe knobs that can be flipped on a running
    host are touched; at the end everything is as it was. An API key for --gateway comes from $TVOPS_API_KEY.
    Exit codes: 0 measured; 7 something could not be put back.
    """
    from tvops.commands.tune.printing import this_command
    from tvops.commands.tune.recovering import settle_interrupted
    from tvops.json_text import json_indented
    from tvops.tuning.evidence.report import render_markdown
    from tvops.tuning.journal import StateDirectory, state_directory
    from tvops.tuning.plan import Limits
    from tvops.tuning.profiles import chosen_profile
    from tvops.tuning.setup import Reach, opened

    state = StateDirectory(state_directory())
    reach = Reach(servers=tuple(servers or ()), data_dir=data_dir, config=config)
    with state.lock(wait, this_command()):
        settle_interrupted(state, "", reach)
        with opened(reach) as setup:
            resolved = setup.resolve(chosen_profile(profile), assignments or ())
            items = setup.plan(resolved, Limits(only=tuple(only or ()), skip=tuple(skip or ())))
            wanted = measurement(setup, seconds, gateway, seed, together)
            evidence, files = measure_items(state, setup, resolved, items, wanted, report)
    if as_json:
        typer.echo(json_indented(evidence))
    else:
        say(render_markdown(evidence))
    say(f"report: {files['markdown']} and {files['json']}", err=True)
    return 0


def measurement(
    setup: Setup, seconds: float, gateway: str, seed: int | None = None, together: bool = False
) -> Options:
    """Say how to measure: the servers that tuning reaches, the stack's own gateway where it may be asked."""
    import os

    from tvops.tuning.evidence.measuring import Options

    return Options(
        seconds=seconds,
        seed=seed,
        together=together,
        servers=tuple(setup.servers),
        gateway=gateway,
        local_gateway=f"http://127.0.0.1:{setup.gateway_port}",
        api_key=os.environ.get("TVOPS_API_KEY", ""),
    )


def measure_items(
    state: StateDirectory, setup: Setup, profile: Profile, items: list[Item], wanted: Options, report: Path | None
) -> tuple[Evidence, dict[str, str]]:
    """Run an experiment in a run of its own, showing its progress on a terminal; write both reports.

    Gives the evidence and the paths of the reports (``markdown`` and ``json``).
    """
    from tvops.commands.tune.printing import this_command
    from tvops.errors import UsageError
    from tvops.json_text import json_indented
    from tvops.tuning.evidence.measuring import measure as run_experiment
    from tvops.tuning.evidence.report import render_markdown

    folder = report or state.path / "evidence"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--report {folder}: {error.strerror}") from None
    with state.new_run(
        "measure", command=this_command(), root=setup.host.root, profile=profile.name, items=items
    ) as run:
        name = run.run.id
        with _Bar() as bar:
            evidence = run_experiment(items, setup.catalogue, setup.drivers, run, wanted, bar.show)
    try:
        paths = {"markdown": folder / f"{name}.md", "json": folder / f"{name}.json"}
        paths["markdown"].write_text(render_markdown(evidence))
        paths["json"].write_bytes(json_indented(evidence))
    except OSError as error:
        raise UsageError(f"--report {folder}: {error.strerror}") from None
    return evidence, {kind: str(path) for kind, path in paths.items()}


class _Bar:
    """A progress bar on stderr; silent where that is no terminal."""

    def __enter__(self) -> _Bar:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._bars = Progress(
            TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), console=Console(stderr=True),
            transient=True, disable=not Console(stderr=True).is_terminal, auto_refresh=False,
        )  # fmt: skip
        self._bars.start()
        self._task = self._bars.add_task("measuring", total=None)
        return self

    def show(self, progress: object) -> None:
        """Take up how far an experiment is."""
        from tvops.tuning.evidence.experiment import Progress

        assert isinstance(progress, Progress)
        total = progress.pairs or None
        self._bars.update(self._task, description=progress.text, completed=progress.done, total=total)
        self._bars.refresh()  # between two pairs: a thread that draws would be measured as well

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

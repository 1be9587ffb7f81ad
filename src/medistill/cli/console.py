"""How commands speak: tables and answers on standard output, progress and errors on standard error."""

import functools
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from medistill.errors import MedistillError, MissingPart
from medistill.files import storage_errors

if TYPE_CHECKING:
    from medistill.evidence import Row, Scenario, Study

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]

_QUIET_SECONDS = 30
_INTERRUPTED = 130

# Nothing that is printed is markup: names may come from a stranger's package.
out = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)

Command = TypeVar("Command", bound=Callable[..., None])


def reported(command: Command) -> Command:
    """Turn what a command may raise into a paragraph and an exit code.

    With `--json`, a refusal is a document too: {"ok": false, "error": KIND, "message": TEXT}.
    """

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            try:
                command(*args, **kwargs)
            except ModuleNotFoundError as error:
                raise MissingPart(
                    f"This command needs {error.name}, which is not installed. The numeric half comes with: "
                    "pip install 'medistill[distill]'"
                ) from error
            except OSError as error:
                if not isinstance(error.filename, str | os.PathLike):  # of no file: a pipe that closed, a library
                    raise
                with storage_errors(Path(error.filename)):
                    raise
        except MedistillError as error:
            if kwargs.get("json"):
                print_json({"ok": False, "error": type(error).__name__, "message": str(error)})
            err.print(f"{type(error).__name__} ", end="", style="bold red")
            err.print(str(error))
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            err.print("Interrupted. What was finished is kept: run the same command again to go on.")
            raise typer.Exit(_INTERRUPTED) from None

    return wrapped  # type: ignore[return-value]


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    typer.echo(json.dumps(document, indent=2, allow_nan=False))


class Bar:
    """A progress bar with the time left; a line now and then where standard error is not a terminal."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._task, self._total, self._done = "", 0, 0
        self._started = self._spoke = time.monotonic()
        self._begun_with = 0

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def begin(self, task: str, total: int, done: int = 0) -> None:
        """Close the bar of the last task and open one for this."""
        self._close()
        self._task, self._total, self._done, self._begun_with = task, total, done, done
        self._started = self._spoke = time.monotonic()
        if err.is_terminal:
            columns = (
                TextColumn("{task.description:>12}"),
                BarColumn(),
                TaskProgressColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(elapsed_when_finished=True),
            )
            self._bar = Progress(*columns, console=err)
            self._bar.start()
            self._bar.add_task(task, total=total, completed=done)

    def advance(self, count: int) -> None:
        """Move on."""
        self._done += count
        if self._bar is not None:
            self._bar.advance(self._bar.task_ids[0], count)
        elif time.monotonic() - self._spoke > _QUIET_SECONDS:
            self._spoke = time.monotonic()
            err.print(f"{self._task}: {self._done:,} of {self._total:,}, about {self._left()} left")

    def say(self, message: str) -> None:
        """A line above the bar."""
        (self._bar.console if self._bar is not None else err).print(message)

    def _left(self) -> str:
        from medistill.report.words import duration

        done = self._done - self._begun_with
        return duration((time.monotonic() - self._started) / max(done, 1) * (self._total - self._done))

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def rows_table(rows: "Sequence[Row]", title: str) -> Table:
    """The table that a run ends with: percent, mean and standard deviation over networks."""
    from medistill.evidence import Compared
    from medistill.report.words import images_seen, percent, plain_name

    networks = max(row.accuracy.n for row in rows)
    table = Table(title=f"{title}, mean ± sd of {networks} networks", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("trained on")
    compares = any(isinstance(row, Compared) for row in rows)
    if compares:
        table.add_column("saw images")
    for name in ("images", "accuracy", "balanced accuracy", "AUC"):
        table.add_column(name, justify="right", min_width=10)
    for row in rows:
        if row.same_as is None:
            figures = (row.accuracy, row.balanced_accuracy, row.auc)
            protocol = [images_seen(row)] if isinstance(row, Compared) else []
            table.add_row(plain_name(row.name), *protocol, f"{row.images:,}", *map(percent, figures))
    return table


def study_table(study: "Study", scenario: "Scenario") -> Table:
    """How the small hospital did, in percent, and what each help is worth."""
    from medistill.report.words import help_name, percent, scenario_name, size, worth_said

    networks = study.networks * len(study.seeds)
    title = f"{scenario_name(scenario)}, {study.split}, mean ± sd of {networks} networks"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("hospital B has")
    for name in ("own a class", "balanced accuracy", "AUC", "worth own a class", "sent"):
        table.add_column(name, justify="right")
    for row in study.rows:
        if row.scenario == scenario:
            table.add_row(
                help_name(row.help, row.rounds),
                str(row.own),
                percent(row.balanced_accuracy),
                percent(row.auc),
                worth_said(row.worth),
                size(row.sent_bytes),
            )
    return table

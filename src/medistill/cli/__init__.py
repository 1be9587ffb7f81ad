"""The command line: one command for every arrow in the drawing of docs/architecture.md.

Commands import what they need when they run, so `--help`, `verify` and `show` work without torch.
"""

import typer

from medistill.cli import holder, keys, receiver, research, trainer

app = typer.Typer(
    name="medistill",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Share what medical images teach without sending the images.",
    epilog="Exit codes: 0 done, 1 refused (the message says what to do), 2 wrong usage, 130 interrupted.",
)
for command in (
    holder.inspect,
    holder.run,
    holder.teach,
    holder.distill,
    holder.evaluate,
    holder.pack,
    holder.sign,
    holder.encrypt,
    research.compare,
    research.study,
    research.tune,
    receiver.verify,
    receiver.show,
    trainer.train,
    trainer.reproduce,
    receiver.export,
    receiver.merge,
    receiver.decrypt,
):
    app.command()(command)
app.add_typer(keys.app, name="keys")


def main() -> None:
    """The `medistill` program."""
    app()

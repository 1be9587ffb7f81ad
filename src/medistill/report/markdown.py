"""A comparison's table as Markdown, to be pasted where people write."""

from medistill.evidence import Compared, Comparison
from medistill.report import words

_HEAD = (
    "method",
    "saw",
    "images",
    "accuracy",
    "balanced accuracy",
    "95 % interval",
    "harmonic mean",
    "AUC",
    "sent",
    "training",
)


def comparison_table(comparison: Comparison) -> str:
    """A line for every row, its figures in percent, mean and standard deviation over networks."""
    seeds = ", ".join(map(str, comparison.seeds))
    networks = comparison.rows[-1].accuracy.n
    about = (
        f"{comparison.title}: {words.counted(comparison.judged_images, comparison.split + ' image')}, "
        f"mean ± sd of {words.counted(networks, 'network')} over seeds {seeds}."
    )
    lines = [_HEAD, ("---",) * 3 + ("---:",) * (len(_HEAD) - 3), *(_cells(row) for row in comparison.rows)]
    return "\n".join([_escaped(about), "", *(f"| {' | '.join(line)} |" for line in lines)]) + "\n"


def _cells(row: Compared) -> tuple[str, ...]:
    interval = row.balanced_accuracy_interval
    return (
        _escaped(words.plain_name(row.name)),
        words.protocol_name(row.protocol),
        f"{row.images:,}",
        words.percent(row.accuracy),
        words.percent(row.balanced_accuracy),
        f"{100 * interval.low:.1f} to {100 * interval.high:.1f}",
        words.percent(row.harmonic_mean) if row.harmonic_mean else "",
        words.percent(row.auc),
        words.size(row.sent_bytes),
        words.duration(row.train_seconds),
    )


def _escaped(text: str) -> str:
    """The text with nothing in it that Markdown or a browser would take for more than text."""
    return "".join(f"&#{ord(letter)};" if letter in r"\`*_{}[]<>#|&!" else letter for letter in text)

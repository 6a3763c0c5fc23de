"""Whether a search learned, in words and as a table: accuracies of the derived, of sampled and of random paths."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

from tfnas.jobs.artifacts import write_text
from tfnas.report.inputs import TargetResult

NEAR_CHANCE = 0.1  # of the way from chance to 100 %
COLUMNS = {"derived": "derived_top1", "sampled": "val_top1", "random": "random_top1_mean"}  # of a search's history


def chance_percent(target: TargetResult) -> float:
    """Top-1 of guessing, 100 / K for K classes that are equally frequent."""
    return 100.0 / float(target.search_metrics["num_classes"])


def learning_text(target: TargetResult) -> str:
    """The accuracies after the last epoch, and what they say of the supernet and of the choice."""
    last, chance = target.search[-1], chance_percent(target)
    derived, mean, std = last["derived_top1"], last.get("random_top1_mean"), last.get("random_top1_std")
    scores = f"At the end the derived path scores {derived:.1f} %, sampled paths {last['val_top1']:.1f} %"
    if mean is None or std is None:
        return f"{scores}; chance is {chance:.0f} %. No random paths were drawn (search.evaluation.random_paths is 0)."
    numbers = f"{scores}, random paths {mean:.1f} ± {std:.1f} %; chance is {chance:.0f} %."
    return f"{numbers} {_verdict(derived, mean, std, chance, int(target.search_metrics['evaluation_images']))}"


def _verdict(derived: float, mean: float, std: float, chance: float, images: int) -> str:
    """Compares by the spread of random paths or by the counting error of so many images, whichever is larger."""
    counting = math.sqrt(max(mean * (100.0 - mean), 0.0) / images)  # one standard error of a path's top-1, in percent
    margin = max(std, 2.0 * counting)
    what = "their spread" if std >= 2.0 * counting else f"what {images} images can tell (± {2.0 * counting:.1f} %)"
    if mean < chance + NEAR_CHANCE * (100.0 - chance):
        return "Random paths are near chance: most of the supernet has not learned, so it cannot tell good from bad."
    if derived > mean + margin:
        return f"The supernet has learned, and the derived path is better than random ones by more than {what}."
    if derived >= mean - margin:
        return f"The supernet has learned; the derived path differs from random ones by no more than {what}."
    return f"The supernet has learned, but the derived path is worse than random ones by more than {what}."


def untrained_text(target: TargetResult) -> str | None:
    """That α started on a supernet that had hardly learned, with what to do; None where it had, or without warm-up."""
    loss, limit = (target.search_metrics.get(name) for name in ("warm_up_loss", "untrained_above"))
    if loss is None or limit is None or loss <= limit:
        return None
    share = limit / math.log(target.search_metrics["num_classes"])
    return (
        f"α started on a supernet that had hardly learned: the warm-up ended at a cross-entropy of {loss:.2f}, above"
        f" {share:.1f} ln K = {limit:.2f}. Raise search.warmup_epochs, write search.weight_sharing:"
        " entangled, or search a space of fewer candidates."
    )


def write_accuracies(targets: list[TargetResult], folder: Path) -> None:
    """One CSV file per searched target, for `dvc plots`: the epoch and the top-1 of each kind of path, in percent."""
    folder.mkdir(parents=True, exist_ok=True)
    for target in (target for target in targets if not target.is_given):
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("epoch", *COLUMNS))
        writer.writerows([row["epoch"], *(row.get(name) for name in COLUMNS.values())] for row in target.search)
        write_text(folder / f"{target.name}.csv", text.getvalue())

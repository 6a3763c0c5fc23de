"""Stage warm_up: the supernet trained with alpha and beta frozen, once for all targets (Appendix B)."""

from __future__ import annotations

import logging

from tfnas.compute import distributed
from tfnas.jobs.artifacts import write_json
from tfnas.search.loop import run_warm_up
from tfnas.search.result import EpochRecord, write_history, write_no_supernet
from tfnas.search.session import interrupted_run, log_to, open_session
from tfnas.space import Space, load_space
from tfnas.stages.job import Job
from tfnas.stages.params import spared_supernet

logger = logging.getLogger("tfnas.search")


def check(job: Job) -> Space:
    """The space that is searched."""
    return load_space(job.params.space)


def resumes(job: Job, space: Space) -> str | None:
    """The tracking run of this very job, where one was interrupted."""
    return None if job.params.search.epochs == 0 else interrupted_run(job, space)


def run(job: Job, space: Space) -> None:
    """Write supernet.pt, history.csv and metrics.json into `job.out`; without epochs there is no supernet."""
    if job.params.search.epochs > 0:
        _warm_up(job, space)
    elif distributed.rank() == 0:
        logger.info("warm_up: search.epochs is 0, nothing is trained")
        write_json(job.out / "metrics.json", write_no_supernet(job.out, "search.epochs is 0"))


def _warm_up(job: Job, space: Space) -> None:
    if (hint := spared_supernet(job.params)) is not None:
        logger.info("warm_up: %s", hint)
    records = list[EpochRecord]()
    with open_session(job, space) as session:
        warm_up = run_warm_up(
            space,
            session.loaders,
            session.setting,
            checkpoints=session.checkpoints,
            on_epoch=log_to(job.run, space, records),
        )
        if distributed.rank() > 0:
            return
        warm_up.save(job.out / "supernet.pt", job.values)
        write_history(records, job.out / "history.csv")
        metrics = warm_up_metrics(records, warm_up.num_classes)
        write_json(job.out / "metrics.json", metrics)
        job.run.log_metrics(metrics)
        job.at_end.append(session.discard)


def warm_up_metrics(history: list[EpochRecord], num_classes: int) -> dict[str, float]:
    """The last epoch in numbers; without any where there is none."""
    metrics: dict[str, float] = {"epochs": len(history), "num_classes": num_classes}
    if history:
        last = history[-1]
        metrics |= {
            "train_loss": last.train_loss,
            "train_top1_percent": last.train_top1,
            **last.accuracies(),
        }
    return metrics

"""The page of the claims and the same as plain data: verdicts, statements with their tests, tables and figures."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfnas.claims.claims import CHANCES, LEARNS, Claim, Statement, chosen_claims, needed_variants
from tfnas.claims.figures import FIGURES, WEIGHTS, figures
from tfnas.claims.params import ClaimsParams
from tfnas.claims.units import Runs, Unit, random_accuracy, read_units, share
from tfnas.claims.variants import DEFAULT, EARLY_STOPPING, ONE_PATH, WARM_UP
from tfnas.claims.verdicts import ALPHA, MIN_SEEDS, Tested
from tfnas.data import read_manifest
from tfnas.latency import LatencyTable
from tfnas.report.html import figure_markup, page_environment

if TYPE_CHECKING:
    from tfnas.stages.params import Params

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Evidence:
    """All that the page says."""

    params: Params
    claims: ClaimsParams
    runs: dict[str, Runs]  # by weight sharing
    table: LatencyTable
    images: dict[str, int]  # of training and of validation
    warm_ups: tuple[Unit, ...] = ()  # that units have in common

    @property
    def units(self) -> list[Unit]:
        """The finished ones."""
        return [unit for runs in self.runs.values() for found in runs.values() for unit in found.values()]

    @property
    def variants(self) -> int:
        """How many there are."""
        return len(needed_variants(self.claims))

    @property
    def wanted(self) -> int:
        """How many units there are to be."""
        return self.variants * len(self.claims.weight_sharing) * self.claims.seeds


def read_evidence(params: Params, claims: ClaimsParams, units: Path, table: Path, manifest: Path) -> Evidence:
    """The finished units in a folder, and what they were measured and trained on.

    Raises:
        UserError: a damaged file.
    """
    records, names = read_manifest(manifest), list(needed_variants(claims))
    runs: dict[str, Runs] = {
        sharing: read_units(units, names, sharing, claims.seeds) for sharing in claims.weight_sharing
    }
    images = {split: sum(record.split == split for record in records) for split in ("train", "val")}
    warm_ups = [
        unit
        for sharing in claims.weight_sharing
        for unit in read_units(units, [WARM_UP], sharing, claims.seeds)[WARM_UP].values()
    ]
    return Evidence(params, claims, runs, LatencyTable.load(table), images, tuple(warm_ups))


def verdicts(evidence: Evidence) -> dict[str, Any]:
    """Every verdict and the numbers that it follows from, as plain data."""
    return {
        "kind": "claims",
        "format_version": 1,
        "units": {"finished": len(evidence.units), "wanted": evidence.wanted},
        "seeds": evidence.claims.seeds,
        "alpha": ALPHA,
        "time": times(evidence),
        "weight_sharing": {
            sharing: {
                "supernet_learns": _statement(LEARNS, runs),
                "claims": {
                    claim.key: {
                        "title": claim.title,
                        "verdict": claim.verdict(runs),
                        "statements": [_statement(statement, runs) for statement in claim.statements],
                    }
                    for claim in chosen_claims(evidence.claims)
                },
            }
            for sharing, runs in evidence.runs.items()
        },
    }


def _statement(statement: Statement, runs: Runs) -> dict[str, Any]:
    tested = statement.test(runs)
    return {
        "text": statement.text,
        "quantity": statement.quantity,
        "verdict": tested.verdict,
        "differences": list(tested.differences),
        "mean": tested.mean,
        "p_holds": tested.p_holds,
    }


def times(evidence: Evidence) -> dict[str, float]:
    """Hours that warm-ups and units took together, by clock and by CPU; and from the first start to the last end."""
    units = evidence.units
    if not units:
        return {}
    run = [*evidence.warm_ups, *units]
    began = min(datetime.fromisoformat(unit.values["began"]) for unit in run)
    ended = max(datetime.fromisoformat(unit.values["ended"]) for unit in run)
    return {
        "hours": (ended - began).total_seconds() / 3600,
        "unit_hours": sum(unit.values["seconds"] for unit in run) / 3600,
        "cpu_hours": sum(unit.values["cpu_seconds"] for unit in run) / 3600,
        "cpu_minutes_per_unit": statistics.median(unit.values["cpu_seconds"] for unit in units) / 60,
    }


def render_claims(evidence: Evidence) -> str:
    """The HTML: one file that loads nothing, the same bytes for the same units."""
    tested = chosen_claims(evidence.claims)
    drawn = {sharing: figures(runs, sharing) for sharing, runs in evidence.runs.items()}
    return (
        page_environment(TEMPLATES)
        .get_template("claims.html")
        .render(
            evidence=evidence,
            params=evidence.params,
            weights=WEIGHTS,
            chances=CHANCES,
            alpha=ALPHA,
            min_seeds=MIN_SEEDS,
            times=times(evidence),
            counts={
                verdict: sum(claim.verdict(runs) == verdict for runs in evidence.runs.values() for claim in tested)
                for verdict in ("holds", "not shown", "contradicts")
            },
            learned=[_learned(evidence, sharing) for sharing in evidence.runs],
            claims=[_section(claim, evidence, drawn) for claim in tested],
        )
    )


def _learned(evidence: Evidence, sharing: str) -> dict[str, Any]:
    runs = evidence.runs[sharing]
    units = list(runs[DEFAULT].values())
    return {
        "weights": WEIGHTS[sharing],
        "random": mean_and_deviation([random_accuracy(unit) for unit in units]),
        "derived": mean_and_deviation([float(unit.history[-1]["derived_top1"]) for unit in units]),
        "chance": f"{units[0].chance:.0f}" if units else "–",
        "tested": told(LEARNS.test(runs)),
    }


def _section(claim: Claim, evidence: Evidence, drawn: dict[str, Any]) -> dict[str, Any]:
    """What the template shows of a claim."""
    return {
        "claim": claim,
        "verdicts": {sharing: claim.verdict(runs) for sharing, runs in evidence.runs.items()},
        "statements": [
            (statement, {sharing: told(statement.test(runs)) for sharing, runs in evidence.runs.items()})
            for statement in claim.statements
        ],
        "rows": [
            (row, {sharing: _cells(runs[row.variant]) for sharing, runs in evidence.runs.items()}) for row in claim.rows
        ],
        "notes": _notes(claim, evidence),
        "figures": [
            figure_markup(f"{claim.key}-{sharing}-{number}", label, make)
            for number, sharing, label, make in sorted(_drawn(claim.key, drawn), key=lambda one: one[0])
        ],
        "caption": FIGURES.get(claim.key, ""),
    }


def _drawn(key: str, drawn: dict[str, Any]) -> list[tuple[int, str, str, Any]]:
    """Number, weight sharing, label and maker of each figure of a claim."""
    return [
        (number, sharing, label, make)
        for sharing, found in drawn.items()
        for number, (label, make) in enumerate(found.get(key, ()))
    ]


def told(tested: Tested) -> dict[str, str]:
    """A test in words: mean difference with its 95 % interval, p, number of seeds, verdict."""
    mean, half = tested.mean, tested.half_width
    numbers = "–" if mean is None else f"{mean:+.2f}" + ("" if half is None else f" ± {half:.2f}")
    p = "–" if tested.p_holds is None else ("< 0.001" if tested.p_holds < 0.001 else f"{tested.p_holds:.3f}")
    return {"numbers": numbers.replace("-", "−"), "p": p, "n": str(len(tested.differences)), "verdict": tested.verdict}


def _cells(found: dict[int, Unit]) -> dict[str, str]:
    """Of a row: accuracy, latency, multiply-adds and the search's time, means over the seeds."""
    values = [unit.values for unit in found.values()]
    return {
        "top1": mean_and_deviation([value["top1_percent"] for value in values if "top1_percent" in value]),
        "latency": mean_and_deviation([value["table_latency_ms"] for value in values]),
        "macs": f"{statistics.fmean(value['macs'] for value in values) / 1e6:.2f}" if values else "–",
        "seconds": f"{statistics.fmean(value['search_cpu_seconds'] for value in values):.0f}" if values else "–",
        "n": str(len(values)),
    }


def mean_and_deviation(values: list[float]) -> str:
    """As `76.30 ± 0.21`, the deviation of the sample."""
    if not values:
        return "–"
    mean = f"{statistics.fmean(values):.2f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.2f}"


def _notes(claim: Claim, evidence: Evidence) -> list[str]:
    """Numbers that the paper gives in words."""
    notes = []
    for sharing, runs in evidence.runs.items():
        if claim.key == "figure-2" and runs[ONE_PATH] and runs[DEFAULT]:
            one, two = ([share(unit) for unit in runs[name].values()] for name in (ONE_PATH, DEFAULT))
            notes.append(
                f"{WEIGHTS[sharing].capitalize()}: the most frequent operation has {mean_and_deviation(one)} % of the"
                f" derivations with one path, {mean_and_deviation(two)} % with bi-sampling. The paper has almost 80 %"
                " with one path, in layers 12 and 17."
            )
        if claim.key == "appendix-e" and runs[EARLY_STOPPING]:
            stops = [len(unit.history) for unit in runs[EARLY_STOPPING].values() if unit.stopped_early]
            epochs = f", at epoch {', '.join(map(str, stops))}" if stops else ""
            total = len(runs[EARLY_STOPPING])
            notes.append(f"{WEIGHTS[sharing].capitalize()}: {len(stops)} of {total} searches stopped early{epochs}.")
    return notes

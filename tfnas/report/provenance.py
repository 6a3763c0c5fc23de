"""How the results were made, from the provenance.json of every job; absent ones are said to be absent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

UNKNOWN = "not recorded"


class ProvenanceRow(NamedTuple):
    """One job: where and from what it was made."""

    job: str
    commit: str
    device: str
    params_digest: str


def provenance_rows(provenance: dict[str, dict[str, Any]]) -> list[ProvenanceRow]:
    """One row a job, with the digests cut to what a person compares.

    The times and the MLflow runs are left out: a job repeated with the same outcome leaves the same page.
    """
    return [
        ProvenanceRow(
            job,
            _text(fields, "git_commit", _short_commit),
            _text(fields, "device"),
            _text(fields, "params_digest", lambda digest: digest[:12]),
        )
        for job, fields in provenance.items()
    ]


def recorded_packages(provenance: dict[str, dict[str, Any]]) -> list[str]:
    """Each set of versions that a job ran with, as `python 3.11.9, torch 2.14.1`; one where all agree."""
    found = []
    for fields in provenance.values():
        packages = fields.get("packages")
        if isinstance(packages, dict) and packages:
            found.append(", ".join(f"{name} {version}" for name, version in packages.items()))
    return list(dict.fromkeys(found))


def _text(fields: dict[str, Any], name: str, cut: Callable[[str], str] = str) -> str:
    value = fields.get(name)
    return cut(value) if isinstance(value, str) and value else UNKNOWN


def _short_commit(commit: str) -> str:
    head, dash, rest = commit.partition("-")
    return head[:10] + dash + rest

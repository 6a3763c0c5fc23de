"""The section `claims` of params.yaml, which only `snakemake claims` needs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tfnas.jobs.sections import AS_LIST, Count, NonNegative, Section
from tfnas.search.params import EarlyStoppingParams

Sharing = Literal["none", "entangled"]
Key = Literal[
    "figure-2",
    "table-3",
    "figure-4a",
    "table-4",
    "figure-4b",
    "table-5",
    "table-13",
    "figure-8",
    "appendix-e",
    "appendix-b",
]


class ClaimsParams(Section):
    """What the sections `search` and `retrain` do not say; those hold for every variant."""

    tested: Annotated[tuple[Key, ...], AS_LIST, Field(min_length=1)]  # keys of the claims, in the order of the page
    seeds: Count  # runs of each variant
    weight_sharing: Annotated[tuple[Sharing, ...], AS_LIST, Field(min_length=1)]
    lambda_log: NonNegative  # of C1 in Table 5, which the paper tuned and does not print
    lambda_linear: NonNegative  # of C2
    early_stopping: EarlyStoppingParams  # Appendix E
    groups: Annotated[int, Field(ge=2)]  # classes of the two searches of Appendix B

"""One process of a search on random images, by torchrun or alone: python searching_process.py FOLDER [SPOILED_RANK].

FOLDER holds space.yaml, table.json and params.json; the first process writes found.pt into it. A spoiled process stops
normalising its alpha after the first epoch.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from tfnas.compute import distributed
from tfnas.jobs.checkpoints import write_tensors
from tfnas.latency import LatencyTable, reachable_range_ms
from tfnas.search import Loaders, Setting, latency_constraint, search
from tfnas.search.params import SearchParams
from tfnas.search.supernet.supernet import Supernet
from tfnas.space import load_space


class Batches:
    """This process's slice of every batch, as `make_loader` cuts it."""

    def __init__(self, images: int, batch_size: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.images = torch.randn(images, 3, 16, 16, generator=generator)
        self.labels = torch.randint(3, (images,), generator=generator)
        self.share = batch_size // distributed.world_size()
        self.begins = range(distributed.rank() * self.share, images, batch_size)

    def __len__(self) -> int:
        return len(self.begins)

    def __iter__(self):
        return ((self.images[i : i + self.share], self.labels[i : i + self.share]) for i in self.begins)


def main(folder: Path, spoiled: int) -> None:
    torch.set_num_threads(1)
    space, table = load_space(folder / "space.yaml"), LatencyTable.load(folder / "table.json")
    params = SearchParams.model_validate_json((folder / "params.json").read_text())
    low, high = reachable_range_ms(space, table)

    def spoil(record) -> None:
        if distributed.rank() == spoiled:
            Supernet.normalize_architecture = lambda self: None

    loaders = Loaders(Batches(40, params.batch_size, 1), Batches(24, params.batch_size, 2), num_classes=3)
    constraint = latency_constraint(space, table, low + 0.35 * (high - low))
    with distributed.process_group(torch.device("cpu")):
        found = search(constraint, loaders, Setting(params), on_epoch=spoil)
    if distributed.rank() == 0:
        rows = [record.row() for record in found.history]
        payload = {"alphas": found.alphas, "betas": list(found.betas), "widths": found.widths, "rows": rows}
        write_tensors({**payload, "weights": found.weights}, folder / "found.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else -1)

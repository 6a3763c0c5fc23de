"""What the paper prints in Tables 2, 7, 8 and 9: its own results and those that it cites, all of ImageNet at 224 x 224.

Where Table 2 is unreadable in our copy, Table 6, which repeats its rows, was read. A-wose's 504 M are a slip of the
paper (docs/paper.md, published numbers that disagree): its own Table 18 adds up to 512.8 M.
"""

from __future__ import annotations

from typing import NamedTuple


class Cited(NamedTuple):
    """A row of Table 2 or 8: latency on the GPU (Titan RTX, batch 32) or CPU (Xeon Gold 6130, batch 1)."""

    name: str
    top1_percent: float
    latency_ms: float
    macs_millions: int
    epochs: int | None = None
    gpu_days: float | None = None
    venue: str = ""

    @property
    def is_tf_nas(self) -> bool:
        return self.name.startswith("TF-NAS")


class Transferred(NamedTuple):
    """A row of Table 7: accuracies in percent."""

    name: str
    cifar10_percent: float
    cifar100_percent: float
    macs_millions: int


class LookedUp(NamedTuple):
    """A row of Table 9: latencies measured and by the lookup table, in ms; None where the paper has a dash."""

    name: str
    top1_percent: float
    gpu_ms: float
    gpu_table_ms: float | None
    cpu_ms: float
    cpu_table_ms: float | None
    macs_millions: int


GPU = "Titan RTX, batch 32"
CPU = "Intel Xeon Gold 6130 at 2.10 GHz, batch 1, one thread"

TABLE_2 = (
    Cited("NASNet-A", 74.0, 24.23, 564, None, 2000, "CVPR'18"),
    Cited("PC-DARTS", 75.8, 20.18, 597, 250, 3.8, "ICLR'20"),
    Cited("MixNet-S", 75.8, 19.86, 256, None, None, "BMVC'19"),
    Cited("EfficientNet-B0", 76.3, 19.26, 390, 350, None, "ICML'19"),
    Cited("TF-NAS-A-wose", 76.5, 18.07, 504, 250, 1.8),
    Cited("TF-NAS-A", 76.9, 18.03, 457, 250, 1.8),
    Cited("DARTS", 73.3, 17.53, 574, 250, 4, "ICLR'19"),
    Cited("DGAS", 74.0, 17.23, 581, 250, 0.21, "CVPR'19"),
    Cited("SETN", 74.3, 17.42, 600, 250, 1.8, "ICCV'19"),
    Cited("MobileNetV2 1.4x", 74.7, 16.18, 585, None, None, "CVPR'18"),
    Cited("CARS-I", 75.2, 17.80, 591, 250, 0.4, "CVPR'20"),
    Cited("SCARLET-C", 75.6, 15.09, 280, None, 12, "arXiv'19"),
    Cited("DenseNAS-Large", 76.1, 15.71, 479, 240, 2.67, "CVPR'20"),
    Cited("TF-NAS-B-wose", 76.0, 15.09, 433, 250, 1.8),
    Cited("TF-NAS-B", 76.3, 15.06, 361, 250, 1.8),
    Cited("ShuffleNetV1 2.0x", 74.1, 14.82, 524, 240, None, "CVPR'18"),
    Cited("AtomNAS-A", 74.6, 12.21, 258, 350, None, "ICLR'20"),
    Cited("FBNet-C", 74.9, 12.86, 375, 360, 9, "CVPR'19"),
    Cited("ProxylessNAS (GPU)", 75.1, 12.02, 465, 300, 8.3, "ICLR'18"),
    Cited("MobileNetV3", 75.2, 12.36, 219, None, None, "ICCV'19"),
    Cited("MnasNet-A1", 75.2, 11.98, 312, 350, 288, "CVPR'18"),
    Cited("TF-NAS-C-wose", 75.0, 12.06, 315, 250, 1.8),
    Cited("TF-NAS-C", 75.2, 11.95, 284, 250, 1.8),
    Cited("MobileNetV1", 70.6, 9.73, 569, None, None, "arXiv'17"),
    Cited("ShuffleNetV1 1.5x", 71.6, 10.84, 292, 240, None, "CVPR'18"),
    Cited("FPNASNet", 73.3, 11.60, 300, None, 0.83, "ICCV'19"),
    Cited("TF-NAS-D-wose", 74.0, 10.10, 286, 250, 1.8),
    Cited("TF-NAS-D", 74.2, 10.08, 219, 250, 1.8),
)

TABLE_7 = (
    Transferred("TF-NAS-A", 98.27, 88.45, 457),
    Transferred("TF-NAS-B", 98.13, 88.26, 361),
    Transferred("TF-NAS-C", 97.96, 87.27, 284),
    Transferred("TF-NAS-D", 97.78, 85.83, 219),
)

TABLE_8 = (
    Cited("MobileNetV2 1.4x", 74.7, 75.11, 585),
    Cited("RCNet-B", 74.7, 69.49, 471, 400, 8),
    Cited("SPOS", 74.9, 60.92, 328, 240, 12),
    Cited("ProxylessNAS (CPU)", 75.3, 84.81, 439, 300, 8.3),
    Cited("MixNet-S", 75.8, 97.92, 256),
    Cited("TF-NAS-CPU-A", 75.8, 60.11, 305, 250, 1.8),
    Cited("MobileNetV1", 70.6, 44.93, 569),
    Cited("MobileNetV2", 72.0, 55.46, 300),
    Cited("DenseNAS-A", 73.1, 40.21, 251, 240, 2.67),
    Cited("MobileNetV3 0.75x", 73.3, 41.48, 155),
    Cited("FPNASNet", 73.3, 42.41, 300, None, 0.83),
    Cited("TF-NAS-CPU-B", 74.4, 40.09, 230, 250, 1.8),
)

TABLE_9 = (
    LookedUp("TF-NAS-A", 76.9, 18.03, 17.99, 80.14, None, 457),
    LookedUp("TF-NAS-B", 76.3, 15.06, 14.99, 72.10, None, 361),
    LookedUp("TF-NAS-C", 75.2, 11.95, 12.03, 51.87, None, 284),
    LookedUp("TF-NAS-D", 74.2, 10.08, 9.99, 46.09, None, 219),
    LookedUp("TF-NAS-A-wose", 76.5, 18.07, 17.99, 72.67, None, 504),
    LookedUp("TF-NAS-B-wose", 76.0, 15.09, 14.99, 67.66, None, 433),
    LookedUp("TF-NAS-C-wose", 75.0, 12.06, 12.04, 49.29, None, 315),
    LookedUp("TF-NAS-D-wose", 74.0, 10.10, 9.99, 44.86, None, 286),
    LookedUp("TF-NAS-CPU-A", 75.8, 14.00, None, 60.11, 59.99, 305),
    LookedUp("TF-NAS-CPU-B", 74.4, 10.29, None, 40.09, 40.18, 230),
)

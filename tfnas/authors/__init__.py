"""Readers of the files that the TF-NAS authors publish or that their code writes.

The public names are listed in `__init__.pyi`; each is imported when it is first used.
"""

from tfnas.jobs.lazy_names import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)

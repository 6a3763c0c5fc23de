"""The latency lookup table: measuring it, reading it, and what it says about a space.

The public names are listed in `__init__.pyi`; each is imported when it is first used.
"""

from tfnas.jobs.lazy_names import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)

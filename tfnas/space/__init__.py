"""What an architecture is: search spaces, operations, networks, complexity, the published networks.

The public names are listed in `__init__.pyi`; each is imported when it is first used.
"""

from tfnas.jobs.lazy_names import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)

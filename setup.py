"""What pyproject.toml cannot say: a wheel also carries the pipeline's files, copied from the tree to `tfnas/project/`.

`tfnas init` lays them out as a project (tfnas/cli/init/project.py). Everything else is in pyproject.toml.
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

WHOLE = (
    "Snakefile",
    "dvc.yaml",
    ".dvcignore",
    ".gitignore",
    ".dvc/config",
    ".dvc/.gitignore",
    "workflow",
    "profiles",
    "presets",
)
FRAMES = ("inputs", "results")  # folders for the user's own files, of which only the frame is carried
FRAME_FILES = ("README.md", ".gitkeep")


def carried() -> list[Path]:
    """The pipeline's files, relative to the tree."""
    found = [path for name in WHOLE for path in ([Path(name)] if Path(name).is_file() else Path(name).rglob("*"))]
    found += [path for name in FRAMES for path in Path(name).rglob("*") if path.name in FRAME_FILES]
    return sorted(path for path in found if path.is_file() and "__pycache__" not in path.parts)


class BuildWithProject(build_py):
    def run(self) -> None:
        super().run()
        if not self.editable_mode:  # where the tree itself is the project
            for source in carried():
                target = Path(self.build_lib, "tfnas", "project", source)
                self.mkpath(str(target.parent))
                self.copy_file(str(source), str(target))


setup(cmdclass={"build_py": BuildWithProject})

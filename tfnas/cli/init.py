"""`tfnas init`: a complete params.yaml out of a preset."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from tfnas.cli._options import OutputFile
from tfnas.runtime.artifacts import write_text
from tfnas.runtime.errors import UserError

HELP = "Write params.yaml from a preset: digits, imagefolder, imagenet-gpu, imagenet-cpu, ..."
PRESETS = Path(__file__).parents[2] / "presets"  # of the checkout, which the pipeline needs anyway
PARAMS = OutputFile("params.yaml")
OWN_IMAGES = "imagefolder"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("preset", nargs="?", help="name of the preset")
    parser.add_argument("--list", action="store_true", help="name the presets and say what they are for")
    parser.add_argument(
        "--data-root", type=Path, metavar="DIR", help="folder with train/<class>/* and val/<class>/*, or <class>/*"
    )
    parser.add_argument(
        "--cifar-root", type=Path, metavar="DIR", help="folder with cifar-10-batches-py and cifar-100-python"
    )
    parser.add_argument("--out", type=OutputFile, default=PARAMS, help="file to write (default: params.yaml)")


def run(options: argparse.Namespace) -> None:
    if options.list:
        for name in preset_names():
            print(f"{name:20} {_title(name)}")
        return
    if options.preset is None:
        raise UserError(f"init: which preset? One of {', '.join(preset_names())}; `tfnas init --list` describes them")
    text = read_preset(options.preset)
    text = _fill(text, options.preset, "--data-root", options.data_root)
    text = _fill(text, options.preset, "--cifar-root", options.cifar_root)
    if options.preset == OWN_IMAGES:
        text = _fit(text, options.data_root)
    backup = _keep(options.out, text)
    write_text(options.out, text)
    print(f"{options.out}: written from preset {options.preset}{backup}.")
    print("Look at `targets`, then run: snakemake --cores all")


def preset_names() -> list[str]:
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def read_preset(name: str) -> str:
    """The text of a preset.

    Raises:
        UserError: unknown name.
    """
    if name not in preset_names():
        raise UserError(f"init: unknown preset {name!r}; known: {', '.join(preset_names())}")
    return (PRESETS / f"{name}.yaml").read_text(encoding="utf-8")


def _title(name: str) -> str:
    return read_preset(name).splitlines()[0].removeprefix("# ")


def _fill(text: str, preset: str, option: str, folder: Path | None) -> str:
    """Put a folder in the place that the preset marks with `set by <option>`."""
    pattern = re.compile(rf"^(  root: )(\S+)( +# set by {option}.*)$", re.MULTILINE)
    if folder is None:
        if option == "--data-root" and pattern.search(text):
            raise UserError(f"init: preset {preset} needs {option} DIR, the folder of your images")
        return text
    if not pattern.search(text):
        raise UserError(f"init: preset {preset} has no place for {option}; leave it out")
    if not folder.is_dir():
        raise UserError(f"init: {option} {folder}: there is no such folder")
    quoted = "'" + str(folder.resolve()).replace("'", "''") + "'"
    return pattern.sub(lambda match: f"{match[1]}{quoted}{match[3]}", text)


def _fit(text: str, root: Path) -> str:
    """Numbers that follow from the images; a folder that is not ready yet leaves them, and prepare_data looks again."""
    from tfnas.cli._fit_preset import fit_to_images

    try:
        return fit_to_images(text, root)
    except UserError as error:
        print(f"note: groups, batches and resolution are the preset's, not your images' ({error})")
        return text


def _keep(path: Path, text: str) -> str:
    """Move a params.yaml that is no preset as shipped, and so holds work of the user's, out of the way."""
    shipped = {text, *map(read_preset, preset_names())}
    if not path.exists() or path.read_bytes() in {preset.encode() for preset in shipped}:
        return ""
    backup = path.with_name(f"{path.name}.bak")
    if backup.exists():
        raise UserError(f"init: {path} and {backup} both exist; move one of them away first")
    path.rename(backup)
    return f"; the file before it is now {backup}"

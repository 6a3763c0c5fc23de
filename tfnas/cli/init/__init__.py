"""`tfnas init`: write a complete params.yaml from a preset."""

from __future__ import annotations

import argparse
from pathlib import Path

from tfnas.cli._console import OutputFile
from tfnas.cli.init.presets import Preset, load_preset, preset_names, render_preset
from tfnas.cli.init.project import lay_out, run_command
from tfnas.jobs.artifacts import write_text
from tfnas.jobs.errors import UserError

HELP = (
    "Write params.yaml from a preset: digits, fashion-mnist, imagefolder, imagenet-gpu, imagenet-cpu, ...; where tfnas"
    " was installed by pip, also the pipeline's files into a folder that has none."
)
PARAMS = OutputFile("params.yaml")
OWN_IMAGES = "imagefolder"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("preset", nargs="?", help="name of the preset")
    parser.add_argument("--list", action="store_true", help="list the presets and what each is for")
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
    preset = load_preset(options.preset)
    set_root(preset, options.preset, "--data-root", options.data_root)
    set_root(preset, options.preset, "--cifar-root", options.cifar_root)
    if options.preset == OWN_IMAGES:
        _fit(preset, options.data_root)
    text = preset.render()
    backup = write_params(options.out, text)
    print(f"{options.out}: written from preset {options.preset}{backup}.")
    tell_how_to_run(options.out, "Look at `targets`, then run:")


def tell_how_to_run(params: Path, words: str) -> None:
    """Make the folder of a params.yaml a project where tfnas can (`lay_out`), and print the command that runs it."""
    if params == PARAMS and (told := lay_out(Path.cwd())):
        print(told)
    print(words, run_command(params.parent))


def _title(name: str) -> str:
    return load_preset(name).introduction[0].removeprefix("# ")


def set_root(preset: Preset, name: str, option: str, folder: Path | None) -> None:
    """Set the folder whose comment in the preset is `set by <option>`."""
    key = next((key for key, entry in preset.entries.items() if entry.comment.startswith(f"set by {option}")), None)
    if folder is None:
        if key is not None and option == "--data-root" and preset.value(key) != "null":
            raise UserError(f"init: preset {name} needs {option} DIR, the folder of your images")
        return
    if key is None:
        raise UserError(f"init: preset {name} has no place for {option}; leave it out")
    if not folder.is_dir():
        raise UserError(f"init: {option} {folder}: there is no such folder")
    preset.replace(key, "'" + str(folder.resolve()).replace("'", "''") + "'")


def _fit(preset: Preset, root: Path) -> None:
    """Fit the preset to the images; a folder that is not ready yet changes nothing, and prepare_data checks again."""
    from tfnas.cli.init.presets import fit_to_images, training_images

    try:
        images = training_images(preset, root)
    except UserError as error:
        print(f"note: groups, batch sizes and resolution are the preset's, not fitted to your images ({error})")
    else:
        fit_to_images(preset, images)


def write_params(path: Path, text: str) -> str:
    """Write a params.yaml; what to say of a file that was there before, which is kept."""
    backup = _keep(path, text)
    write_text(path, text)
    return backup


def _keep(path: Path, text: str) -> str:
    """Move params.yaml out of the way unless it is a preset as shipped: it may hold the user's own work."""
    shipped = {text, *map(render_preset, preset_names())}
    if not path.exists() or path.read_bytes() in {preset.encode() for preset in shipped}:
        return ""
    backup = path.with_name(f"{path.name}.bak")
    if backup.exists():
        raise UserError(f"init: {path} and {backup} both exist; move one of them away first")
    path.rename(backup)
    return f"; the file before it is now {backup}"

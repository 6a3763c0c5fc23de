"""The stages of the pipeline, in the order of their data: the one place that describes them.

The scripts, the Snakefile, dvc.yaml (written by `make dvc.yaml`), the report's inputs and the tests
read this table; what a stage computes is in `tfnas/stages/<stage>.py`. To add a stage, add a row here and that file,
then write dvc.yaml anew and add its rule to the Snakefile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from tfnas.jobs.artifacts import PROVENANCE

LIBRARY = "tfnas"
INPUTS = "inputs"  # the user's own files that parameters name
SCRIPT_FOLDER = "workflow/scripts"

# What there is one job for each of, besides targets, and the section of params.yaml whose keys `targets` and
# `datasets` or `networks` list the jobs.
LISTED_IN = {"dataset": "transfer", "network": "baselines"}

# Rooms and modules of the library whose code changes no result: no stage names them as a code dependency.
CHANGES_NO_RESULT = (
    "__init__.py",
    "claims",
    "cli",
    "deploy",
    "engines",
    "jobs",
    "tables",
    "tracking",
    "stages/__init__.py",
    "stages/job.py",
    "stages/params.py",
    "stages/registry.py",
)


class NamedFile(NamedTuple):
    """A parameter whose value may be the path of the user's own file, and the folder of `inputs/` for such files."""

    key: str  # `*` is any target
    folder: str
    stages: tuple[str, ...]  # that read the file
    keywords: tuple[str, ...] = ()  # values that are no paths

    @property
    def per_target(self) -> bool:
        """Whether each target has a key of its own."""
        return "*" in self.key


NAMED_FILES = (
    NamedFile(
        "space", "spaces", ("profile_latency", "warm_up", "search", "derive", "scale_baseline", "rank_baselines")
    ),
    NamedFile("profile_latency.table", "tables", ("profile_latency",)),
    NamedFile("build_subset.class_list", "class_lists", ("build_subset",)),
    NamedFile("rank_classes.weights", "weights", ("rank_classes",), ("imagenet", "fit")),
    NamedFile("retrain.initial", "weights", ("retrain",), ("scratch", "supernet")),
    NamedFile("retrain.teacher.network", "teachers", ("retrain", "train_baseline"), ("none", "ranking")),
    NamedFile("targets.*.constraint.architecture", "architectures", ("derive",)),
    NamedFile("report.comparison", "comparisons", ("report",)),
)


@dataclass(frozen=True)
class Output:
    """A file or folder that a stage writes into its folder below `results/`.

    Attributes:
        kind: how DVC lists it; `metrics` and `plot` are shown by `dvc metrics` and `dvc plots`.
        plot: DVC's settings of a plot (template, x, y, title); `{target}` and such are replaced. Of a
            folder, those of each file in it; only there does DVC allow several columns as y.
        category: of `snakemake --report`; None leaves it out.
        caption: the stem of a file in `workflow/report/`.
    """

    name: str
    kind: Literal["file", "folder", "metrics", "plot"] = "file"
    plot: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    category: str | None = None
    caption: str = ""

    @property
    def key(self) -> str:
        """Its name as a keyword: `metrics_json` for metrics.json."""
        return self.name.replace(".", "_")


@dataclass(frozen=True)
class Input:
    """An option of a stage's script, and the output of an earlier stage that it is given."""

    option: str  # `--option`
    stage: str
    output: str

    @property
    def help(self) -> str:
        slash = "" if "." in self.output else "/"
        return f"{self.output}{slash} that {self.stage} wrote"


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        paper: the section of the paper that it implements.
        does: what it does, for messages and tables.
        keys: of params.yaml, whose values its results depend on; `{target}` is replaced.
        code: rooms of the library that can change its results, besides its own file and script.
        reads_results: whether it reads all earlier stages' results, instead of named inputs.
        per: what there is one job for each of: nothing, a target, or a target and a data set or a baseline's network.
        only: the section of params.yaml whose `targets` have a job each; None: all of them, where it is one per target.
        measures: whether it measures time, and so runs alone on all cores.
        device: the parameter that says where it computes; None for the CPU.
    """

    name: str
    paper: str
    does: str
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    keys: tuple[str, ...]
    code: tuple[str, ...]
    per: tuple[str, ...] = ()
    only: str | None = None
    measures: bool = False
    device: str | None = None
    reads_results: bool = False

    @property
    def script(self) -> str:
        return f"{SCRIPT_FOLDER}/{self.name}.py"

    @property
    def listed_in(self) -> str | None:
        """The section of params.yaml that lists its jobs; None where they are one, or one of each target."""
        return next((LISTED_IN[name] for name in self.per if name in LISTED_IN), self.only)

    @property
    def code_paths(self) -> tuple[str, ...]:
        """Files and folders of the repository whose change makes its results stale."""
        rooms = (f"{LIBRARY}/{room}" for room in self.code)
        return (self.script, f"{LIBRARY}/stages/{self.name}.py", *rooms)

    @property
    def user_folders(self) -> tuple[str, ...]:
        """Folders of `inputs/` with files that its parameters may name, whether or not they do today."""
        return tuple(f"{INPUTS}/{named.folder}" for named in NAMED_FILES if self.name in named.stages)

    @property
    def earlier(self) -> tuple[Stage, ...]:
        """The stages before it in the pipeline."""
        return _ALL[: _ALL.index(self)]

    @property
    def written(self) -> tuple[Output, ...]:
        """All outputs, the provenance last."""
        return (*self.outputs, Output(PROVENANCE))

    def folder(self, **job: str) -> str:
        """Where a job writes, below the project's folder; e.g. `target="A"`."""
        return "/".join(("results", self.name, *(job[name] for name in self.per)))

    def log(self, **job: str) -> str:
        return "/".join(("logs", self.name, *(job[name] for name in self.per))) + ".log"

    def input_paths(self, **job: str) -> dict[str, str]:
        """The files that a job reads, by option."""
        return {given.option: f"{STAGES[given.stage].folder(**job)}/{given.output}" for given in self.inputs}

    def read_paths(self, **job: str) -> list[str]:
        """What a job reads of other stages' results: files, or whole folders."""
        if self.reads_results:
            return [f"results/{stage.name}" for stage in self.earlier]
        return list(self.input_paths(**job).values())

    def output_paths(self, **job: str) -> dict[str, str]:
        """The files that a job writes, by the keys of the outputs."""
        return {output.key: f"{self.folder(**job)}/{output.name}" for output in self.written}

    def command(self, script: str | None = None, **job: str) -> str:
        """The command line of a job, the same for both engines.

        Args:
            script: what to run, where it is not the script in the working directory.
        """
        options = [f"--{name} {job[name]}" for name in self.per]
        options += [f"--{option.replace('_', '-')} {path}" for option, path in self.input_paths(**job).items()]
        if self.reads_results:
            options.append("--results results")
        given = " ".join(("--params params.yaml", *options, f"--out {self.folder(**job)}", f"--log {self.log(**job)}"))
        return f"python {script or self.script} {given}"


_DEVICE = ("device.name", "device.threads", "device.precision")  # workers changes no result
_TRAINED_ON = ("seed", "resolution", *_DEVICE, "prepare_data")

# What the epochs with alpha and beta frozen use of the search's parameters: neither a target nor a latency table.
_WARM_UP = tuple(
    f"search.{key}"
    for key in (
        "epochs",  # of the cosine
        "warmup_epochs",
        "batch_size",
        "weights",
        "temperature.initial",
        "weight_sharing",
        "depth_space",
        "evaluation",
        "gradient_clip",
        "reset_optimizers",
        "augmentation",
    )
)
_METRICS = Output("metrics.json", "metrics")
_PICTURES = (Input("manifest", "prepare_data", "manifest.csv"), Input("images", "prepare_data", "images"))
_RANKING = Input("ranking", "rank_classes", "network.pt")
_HELD_OUT = (Input("val", "build_subset", "val.csv"), Input("images", "build_subset", "images"))
_SUBSET = (Input("train", "build_subset", "train.csv"), *_HELD_OUT)
_SUPERNET = Input("supernet", "search", "supernet.pt")
_TABLE = Input("table", "profile_latency", "latency_table.json")


def _history(title: str, y: str, category: str | None, caption: str = "") -> Output:
    """history.csv, plotted per epoch."""
    return Output("history.csv", "plot", {"x": "epoch", "y": y, "title": title}, category, caption)


_ALL = (
    Stage(
        name="prepare_data",
        paper="App. B",
        does="list the images",
        inputs=(),
        outputs=(
            Output("manifest.csv"),
            Output("classes.csv"),
            Output("broken.csv"),
            Output("folders.csv"),
            Output("images", "folder"),
            Output("transfer", "folder"),
        ),
        keys=("resolution", "prepare_data", "transfer.datasets", "transfer.root"),
        code=("data", "compute"),
    ),
    Stage(
        name="rank_classes",
        paper="App. B",
        does="top-1 accuracy of each class",
        inputs=_PICTURES,
        outputs=(
            Output(
                "class_accuracy.csv",
                "plot",
                {
                    "template": "bar_horizontal",
                    "x": "top1",
                    "y": "class",
                    "title": "Top-1 accuracy of each class",
                },
            ),
            Output("class_accuracy.svg", category="Classes", caption="classes"),
            Output("network.pt"),
            _METRICS,
        ),
        keys=(*_TRAINED_ON, "rank_classes"),
        code=("data", "compute"),
        device="device",
    ),
    Stage(
        name="build_subset",
        paper="App. B",
        does="one class out of each accuracy group",
        inputs=(
            Input("class_accuracy", "rank_classes", "class_accuracy.csv"),
            *_PICTURES,
        ),
        outputs=(Output("train.csv"), Output("val.csv"), Output("classes.csv"), Output("images", "folder")),
        keys=("seed", "build_subset"),
        code=("data", "compute"),
    ),
    Stage(
        name="profile_latency",
        paper="Sec. 3.1, App. G",
        does="measure the latency table, alone on all cores",
        inputs=(),
        outputs=(
            Output("latency_table.json"),
            Output(
                "validation.csv",
                "plot",
                {
                    "template": "scatter",
                    "x": "table_ms",
                    "y": "measured_ms",
                    "title": "Whole networks, table against measurement, ms",
                },
                "Latency table",
                "validation",
            ),
            _METRICS,
        ),
        keys=("seed", "space", "resolution", "profile_latency"),
        code=("authors", "latency", "space", "compute"),
        measures=True,
        device="profile_latency",
    ),
    Stage(
        name="warm_up",
        paper="App. B",
        does="train the supernet with alpha and beta frozen, once for all targets",
        inputs=_SUBSET,
        outputs=(Output("supernet.pt"), _history("Loss of the warm-up", "train_loss", None), _METRICS),
        keys=(*_TRAINED_ON, "space", *_WARM_UP),
        code=("search", "data", "latency", "space", "compute"),
        device="device",
    ),
    Stage(
        name="search",
        paper="Sec. 3",
        does="operations, depths and widths for the target latency",
        inputs=(*_SUBSET, _TABLE, Input("warm_up", "warm_up", "supernet.pt")),
        outputs=(
            Output("supernet.pt"),
            _history("Latency of {target}, ms", "derived_latency_after_ms", "Search", "search"),
            _METRICS,
        ),
        keys=(*_TRAINED_ON, "space", "search", "derive.within", "targets.{target}.constraint"),
        code=("search", "data", "latency", "space", "compute"),
        per=("target",),
        device="device",
    ),
    Stage(
        name="derive",
        paper="Eq. 10, 11",
        does="the strongest network, measured end to end",
        inputs=(_SUPERNET, _TABLE),
        outputs=(
            Output("architecture.json", category="Networks", caption="architecture"),
            Output("initial.pt"),
            _METRICS,
        ),
        keys=(
            *("seed", "space", "resolution", "profile_latency", "derive", "targets.{target}.constraint"),
            "retrain.initial",  # whether the network's weights are asked for
        ),
        code=("search", "latency", "space", "compute"),
        per=("target",),
        measures=True,
        device="profile_latency",
    ),
    Stage(
        name="retrain",
        paper="App. B",
        does="train the network from scratch, on all classes",
        inputs=(
            Input("architecture", "derive", "architecture.json"),
            Input("initial", "derive", "initial.pt"),
            _RANKING,
            *_PICTURES,
        ),
        outputs=(
            Output("weights.pt"),
            _history("Retraining of {target}, top-1 %", "val_top1", "Training", "training"),
            Output("seeds.csv"),
            _METRICS,
        ),
        keys=(*_TRAINED_ON, "retrain", "targets.{target}.dropout"),
        code=("train", "data", "space", "compute"),
        per=("target",),
        device="device",
    ),
    Stage(
        name="transfer",
        paper="App. F",
        does="fine-tune the network on other data",
        inputs=(
            Input("architecture", "derive", "architecture.json"),
            Input("weights", "retrain", "weights.pt"),
            Input("data", "prepare_data", "transfer"),
        ),
        outputs=(
            Output("weights.pt"),
            _history("Transfer of {target} to {dataset}, top-1 %", "val_top1", "Training", "training"),
            _METRICS,
        ),
        keys=("seed", *_DEVICE, "transfer", "targets.{target}.dropout"),
        code=("train", "data", "space", "compute"),
        per=("target", "dataset"),
        device="device",
    ),
    Stage(
        name="scale_baseline",
        paper="Alg. 1",
        does="bring a network to compare with to the target latency, and measure it",
        inputs=(_TABLE,),
        outputs=(Output("network.json"), _METRICS),
        keys=(
            "seed",
            "space",
            "resolution",
            "profile_latency",
            "derive.measure_repeats",
            "targets.{target}.constraint",
        ),
        code=("search", "latency", "space", "compute"),
        per=("target", "network"),
        measures=True,
        device="profile_latency",
    ),
    Stage(
        name="train_baseline",
        paper="App. B",
        does="train the network to compare with, by the recipe of retrain",
        inputs=(
            Input("baseline", "scale_baseline", "network.json"),
            _RANKING,
            *_PICTURES,
        ),
        outputs=(
            _history("Training of {network} for {target}, top-1 %", "val_top1", None),
            Output("seeds.csv"),
            _METRICS,
        ),
        keys=(*_TRAINED_ON, "retrain", "targets.{target}.dropout"),
        code=("train", "data", "latency", "space", "compute"),
        per=("target", "network"),
        device="device",
    ),
    Stage(
        name="rank_baselines",
        paper="Sec. 3",
        does="evaluate the random networks to compare with in the searched supernet",
        inputs=(
            *_HELD_OUT,
            _TABLE,
            _SUPERNET,
        ),
        outputs=(Output("supernet_top1.csv"), _METRICS),
        keys=(
            *_TRAINED_ON,
            "space",
            "search.epochs",  # whose last one's order of images it is
            "search.batch_size",
            "search.channel_importance",
            "targets.{target}.constraint",
            "baselines.networks",
        ),
        code=("search", "data", "latency", "space", "compute"),
        per=("target",),
        only="baselines",
        device="device",
    ),
    Stage(
        name="report",
        paper="Tab. 2, 7-9",
        does="one page of all results",
        inputs=(),
        outputs=(
            Output("report.html", category="Overview", caption="page"),
            Output("summary.json", "metrics"),
            Output("summary.csv", category="Overview", caption="summary"),
            Output(
                "accuracies", "folder", {"x": "epoch", "y": ("derived", "sampled", "random"), "y_label": "top-1, %"}
            ),
        ),
        keys=("report", "targets", "transfer.targets", "transfer.datasets", "baselines"),
        code=("report", "latency", "space", "compute"),
        reads_results=True,
    ),
)
STAGES: dict[str, Stage] = {stage.name: stage for stage in _ALL}

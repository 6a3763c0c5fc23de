# What the rules of claims.smk depend on.
from tfnas.claims.claims import needed_variants
from tfnas.claims.units import unit_path
from tfnas.claims.variants import required_claims, unit_values, variants
from tfnas.stages.params import files_in

UNITS = Path("results/claims/units")
UNIT_ROOMS = ("claims/unit.py", "search", "train", "data", "latency", "space", "compute")  # code that changes a unit


def the_claims():
    """The section `claims`; an error only where a target of this file is asked for."""
    try:
        return required_claims(PARAMS, "params.yaml")
    except UserError as error:
        raise WorkflowError(str(error)) from None


def unit_code(_):
    rooms = (ROOT / "tfnas" / room for room in UNIT_ROOMS)
    return [os.path.relpath(file) for room in rooms for file in ([room] if room.is_file() else files_in(room))]


def page_code(_):
    return [os.path.relpath(file) for room in ("claims", "report") for file in files_in(ROOT / "tfnas" / room)]


def compared_unit(wildcards):
    """The unit that a variant's network is compared with; none for most."""
    name = variants(the_claims())[wildcards.variant].compared_at
    return [] if name is None else str(unit_path(UNITS, name, wildcards.sharing, wildcards.number))


def values_of_unit(wildcards):
    values = unit_values(PARAMS, the_claims(), wildcards.variant, wildcards.sharing, int(wildcards.number))
    return json.dumps(values, sort_keys=True)


def all_units(_):
    """In the order of the seeds."""
    claims = the_claims()
    return [
        str(unit_path(UNITS, name, sharing, number))
        for number in range(claims.seeds)
        for sharing in claims.weight_sharing
        for name in needed_variants(claims)
    ]

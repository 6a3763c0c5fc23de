"""Imported once by the server that the engines are forked from: their modules, which take seconds each."""

import dvc.cli
import dvc.commands.repro
import dvc.repo.reproduce
import snakemake.api
import snakemake.cli
import snakemake.persistence.file
import snakemake.workflow

import tfnas.engines.sync

__all__ = ["dvc", "snakemake", "tfnas"]

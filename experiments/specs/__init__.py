"""YAML files: experiments, grids, studies, trainings."""

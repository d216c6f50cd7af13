"""From YAML to what is asked: experiments, grids, studies, trainings."""

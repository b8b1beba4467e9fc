"""Pipelines: schedules as tables, their simulation, the choice of stages, legal microbatches."""

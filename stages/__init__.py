"""LIMA as a pipeline: one module a stage, in the order of dvc.yaml."""

"""The training stages, each of which reads as its algorithm, and the pipeline that runs them in order."""

"""One step, one loop over fixed data, one way to begin a stage, and the run directory."""

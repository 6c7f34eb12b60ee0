"""The policy and what it stands on: packed batches, attention, log-probs, weights, processes."""

"""Engines that sample completions, the weights on their way to them, and the rollouts of a step."""

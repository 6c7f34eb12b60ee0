"""The verifier of `benchmarks.rlvr --engine asleep`: the longer half of each group is right, so that all groups teach."""


def score(completion: str, ground_truth: str) -> float:
    """1 for more than 100 characters."""
    return float(len(completion) > 100)

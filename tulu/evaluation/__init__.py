"""Answers of a model to problems: accuracy, best of N, rejection sampling."""

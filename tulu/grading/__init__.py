"""Completions to verdicts and rewards, in processes that can be killed."""

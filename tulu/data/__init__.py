"""Rows to tokens: sources, what a row means, mixing, chat templates, tokenising, problems."""

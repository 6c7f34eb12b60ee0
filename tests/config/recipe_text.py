"""A small recipe without a mistake, which the tests spoil."""

GOOD = """\
name: test
model: owner/model
template: tulu
sft:
  data: rows.jsonl
  max_length: 64
  batch: 16
  epochs: 1
  learning_rate: 1e-4
dpo:
  data: {name: owner/pairs, fraction: 0.5}
  released: owner/model-sft
  max_length: 64
  batch: 16
  steps: 3
  learning_rate: 5e-7
rlvr:
  data: [{name: owner/problems, count: 64}]
  verifier: gsm8k
  prompts: 4
  samples: 4
  batch: 16
  max_prompt: 32
  max_tokens: 32
  max_length: 64
  steps: 2
  learning_rate: 1e-6
"""

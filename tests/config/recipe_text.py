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

_RLVR = GOOD[GOOD.index("rlvr:\n") + 6 :]
_ITEM = "".join(f"  {line}\n" for line in _RLVR.splitlines())
SEVERAL = (
    f"{GOOD.split('rlvr:')[0]}rm:\n  data: {{name: owner/pairs, fraction: 1.0}}\n"
    "  max_length: 64\n  batch: 16\n  steps: 3\n  learning_rate: 3e-6\n"
    f"rlvr:\n  - name: mixed\n{_ITEM}    keep_every: 2\n"
    f"  - name: gsm\n{_ITEM}    start: mixed@step-2\n    released: owner/model-rlvr1\n"
    f"  - name: math\n{_ITEM}"
)
"""The same with a reward model and three RLVR stages: the second starts from a model that the first kept."""

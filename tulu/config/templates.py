"""Chat templates that have a name. They are Jinja, in the files beside this one.

One user turn and its answer are rendered as follows, where EOS stands for the tokenizer's end token:

    tulu    <|user|>\\n1+1=?\\n<|assistant|>\\n2EOS
    olmo    (a system turn, where the conversation has none)<|im_start|>user\\n1+1=?<|im_end|>\\n<|im_start|>assistant\\n2EOS
"""

from pathlib import Path

_TULU, _OLMO = (Path(__file__).with_name(f"{name}.jinja").read_text(encoding="utf-8") for name in ("tulu", "olmo"))
TEMPLATES: dict[str, str] = {"tulu": _TULU, "tulu_bos": "{{ bos_token }}" + _TULU, "olmo": _OLMO}
"""Templates by name, rendered as by open-instruct (dataset_transformation.py @ e6c3044a); tulu_bos is its tulu with --add_bos,
which OLMo 2 uses."""

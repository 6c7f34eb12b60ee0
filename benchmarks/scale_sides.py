"""The three that tokenise the same rows with the same number of processes: this project, the bare tokenizer, and TRL."""

import json
import resource
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from tulu.config.schema import Source
from tulu.data.mixing import sample_rows
from tulu.data.tokenise import TokeniseOptions, encode_part

LONGEST = 4096
Seconds = tuple[float, float]
"""By the clock, and of CPU time by this process and those that it waited for."""


def now() -> Seconds:
    """Both clocks."""
    own, others = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter(), own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime


def since(began: Seconds) -> Seconds:
    """Seconds on both clocks."""
    clock, cpu = now()
    return clock - began[0], cpu - began[1]


def ours(file: Path, model: Path, tokenizer: PreTrainedTokenizerFast, processes: int, context: Any) -> Seconds:
    """From the file to an entry of the cache: read, parsed, rendered, masked, checked, tokenised, written."""
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        began = now()
        rows = sample_rows(Source(name=str(file), fraction=1.0), 1, "sft")
        encode_part("rows", rows, tokenizer, TokeniseOptions("sft", LONGEST), Path(folder) / "entry", processes)
        return since(began)


def bare(file: Path, model: Path, tokenizer: PreTrainedTokenizerFast, processes: int, context: Any) -> Seconds:
    """The tokenizer alone on texts that are rendered already; what it found is counted and not sent back."""
    with file.open() as rows:
        chats = [json.loads(line)["messages"] for line in rows]
    texts = [str(tokenizer.apply_chat_template(chat, tokenize=False)) for chat in chats]
    batches = [texts[place : place + 500] for place in range(0, len(texts), 500)]
    began = now()
    with context.Pool(processes, _begin, (model,)) as pool:
        for _ in pool.imap(_encode, batches):
            pass
        pool.close()
        pool.join()
    return since(began)


_tokenizer: list[PreTrainedTokenizerFast] = []


def _begin(model: Path) -> None:
    _tokenizer.append(PreTrainedTokenizerFast.from_pretrained(model))


def _encode(texts: list[str]) -> int:
    return sum(map(len, _tokenizer[0](texts, add_special_tokens=False)["input_ids"]))


def trl(file: Path, model: Path, tokenizer: PreTrainedTokenizerFast, processes: int, context: Any) -> Seconds:
    """SFTTrainer's preparation of the data set, which is loaded before."""
    import datasets
    from trl import SFTConfig, SFTTrainer

    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        loaded = datasets.load_dataset("json", data_files=str(file), split="train", cache_dir=folder)
        loaded = loaded.select_columns(["messages"])
        spent: list[Seconds] = []
        plain = SFTTrainer._prepare_dataset

        def prepare(*arguments: Any, **options: Any) -> Any:
            began = now()
            prepared = plain(*arguments, **options)
            spent.append(since(began))
            return prepared

        SFTTrainer._prepare_dataset = prepare  # type: ignore[method-assign]
        try:
            settings = SFTConfig(
                output_dir=folder, max_length=LONGEST, dataset_num_proc=processes, report_to="none", use_cpu=True, bf16=False
            )
            SFTTrainer(str(model), settings, train_dataset=loaded, processing_class=tokenizer)
        finally:
            SFTTrainer._prepare_dataset = plain  # type: ignore[method-assign]
            shutil.rmtree(folder, ignore_errors=True)
        return spent[0]

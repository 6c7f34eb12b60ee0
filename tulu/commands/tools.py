"""The commands of `tulu` that train nothing: rewardbench, verify, sample, data, recipes, plan."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tulu.errors import RecipeError

if TYPE_CHECKING:
    from tulu.config.plan import Options
    from tulu.config.schema import Recipe

Gpu = Literal["a100", "h100", "h200"]


def rewardbench(
    model: Annotated[str | None, typer.Argument(help="A reward model, a DPO model or a judge: folder or hub name.")] = None,
    data: Annotated[str, typer.Option(help="v1, v2, or a file of pairs.")] = "v1",
    scores: Annotated[Path | None, typer.Option(help="Only aggregate these scores, made elsewhere.")] = None,
    kind: Annotated[Literal["auto", "classifier", "dpo", "judge"], typer.Option(help="What the model is.")] = "auto",
    reference: Annotated[str | None, typer.Option(help="Reference model of a DPO policy.")] = None,
    reference_free: Annotated[Literal["sum", "avg", "norm"] | None, typer.Option(help="Reward of a DPO policy alone.")] = None,
    template: Annotated[str | None, typer.Option(help="Chat template; default: the tokenizer's own.")] = None,
    max_length: Annotated[int | None, typer.Option(min=1, help="Most tokens; the prompt's start is cut.")] = None,
    add_bos: Annotated[bool, typer.Option(help="Put BOS before texts whose template writes none.")] = False,
    row_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of a packed row.")] = 8192,
    precision: Annotated[Literal["fp32", "bf16"], typer.Option(help="Arithmetic of the forward pass.")] = "fp32",
    out: Annotated[Path | None, typer.Option(help="Folder of the result; default runs/rewardbench/MODEL/DATA.")] = None,
    seed: Annotated[int, typer.Option(help="Of the judge's order and of the bootstrap.")] = 1,
    both_orders: Annotated[bool, typer.Option("--both-orders", help="Judge every order of the answers.")] = False,
    judge_mode: Annotated[Literal["pairwise", "ranking", "ratings"] | None, typer.Option(help="How a judge is asked.")] = None,
    judge_tokens: Annotated[int | None, typer.Option(min=1, help="Most tokens of a verdict.")] = None,
    engine: Annotated[Literal["auto", "transformers", "vllm"], typer.Option(help="What runs a judge without endpoint.")] = "auto",
    ensemble: Annotated[list[Path] | None, typer.Option(help="Further scores files to combine with --scores.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="OpenAI-compatible base URL of a judge.")] = None,
    api_key_env: Annotated[str, typer.Option(help="Environment variable with the endpoint's key.")] = "OPENAI_API_KEY",
    limit: Annotated[int | None, typer.Option(min=1, help="First items of every subset only.")] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Print the published figures beside the result.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over in a folder that already holds scores.")] = False,
) -> None:
    """Score a model on RewardBench 1, RewardBench 2 or your own pairs."""
    from tulu.reward_models import rewardbench as bench
    from tulu.reward_models.options import RewardBenchOptions

    options = RewardBenchOptions(
        kind=kind,
        reference=reference,
        reference_free=reference_free,
        template=template,
        max_length=max_length,
        add_bos=add_bos,
        row_tokens=row_tokens,
        precision=precision,
        out=out,
        seed=seed,
        both_orders=both_orders,
        judge_mode=judge_mode,
        judge_tokens=judge_tokens,
        engine=engine,
        ensemble=tuple(ensemble or ()),
        endpoint=endpoint,
        api_key_env=api_key_env,
        limit=limit,
        compare=compare,
        json_output=json_output,
        fresh=fresh,
    )
    bench.run(model, data, scores, options)


def verify(
    name: Annotated[str, typer.Argument(metavar="VERIFIER", help="Name of a verifier, or path/to/mine.py:score.")],
    source: Annotated[str, typer.Option("--in", help="Rows {completion, ground_truth, ...} as JSONL; - is stdin.")],
    target: Annotated[str, typer.Option("--out", help="Where the scored rows go, in order; - is stdout.")],
    mode: Annotated[Literal["strict", "tulu3"], typer.Option(help="tulu3 agrees with open-instruct.")] = "strict",
    workers: Annotated[int, typer.Option(min=1, help="Processes that grade.")] = 2,
    unsafe_local: Annotated[bool, typer.Option("--unsafe-local", help="Run programs here without a sandbox.")] = False,
    reward_model: Annotated[str | None, typer.Option(help="Folder or hub name, for the verifier reward_model.")] = None,
) -> None:
    """Score completions with a verifier."""
    from tulu.commands.verify import verify_file

    verify_file(name, source, target, mode, workers, unsafe_local=unsafe_local, reward_model=reward_model)


def sample(
    model: Annotated[str, typer.Argument(help="What answers: folder or hub name.")],
    data: Annotated[list[str], typer.Option(help="Rows with prompts; may be given again.")],
    n: Annotated[int, typer.Option(min=1, help="Answers per prompt.")] = 8,
    reward_model: Annotated[str | None, typer.Option(help="Ranks the answers; under --verifier, the right ones.")] = None,
    verifier: Annotated[str | None, typer.Option(help="Keeps what it scores above 0; own takes each row's.")] = None,
    keep: Annotated[int, typer.Option(min=1, help="Most rows per prompt.")] = 1,
    pairs: Annotated[bool, typer.Option("--pairs", help="Also write best against worst, for dpo and rm.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder of the result; default runs/sample/MODEL/DATA.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")] = 512,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 1.0,
    top_p: Annotated[float, typer.Option(min=0.01, max=1, help="Share of the probability to sample from.")] = 1.0,
    limit: Annotated[int | None, typer.Option(min=1, help="First prompts only; a larger one later goes on.")] = None,
    template: Annotated[str, typer.Option(help="Chat template; default: the tokenizer's own.")] = "tokenizer",
    engine: Annotated[Literal["auto", "transformers", "vllm"], typer.Option(help="What samples.")] = "auto",
    batch: Annotated[int, typer.Option(min=1, help="Answers between two writes.")] = 256,
    seed: Annotated[int, typer.Option(help="Of sampling.")] = 1,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over in a folder that already holds samples.")] = False,
) -> None:
    """Rejection sampling: the best of N answers to each prompt, as rows for sft, dpo and rm."""
    from tulu.evaluation import sample as sampling

    options = sampling.Options(
        data=tuple(data),
        n=n,
        reward_model=reward_model,
        verifier=verifier,
        keep=keep,
        pairs=pairs,
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        limit=limit,
        template=template,
        engine=engine,
        batch=batch,
        seed=seed,
        out=out,
        fresh=fresh,
    )
    sampling.sample(model, options)


def data(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe file, or a built-in one by name.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="KEY.PATH=VALUE", help="Fields to override.")] = None,
    decontaminate: Annotated[bool, typer.Option("--decontaminate", help="Also search for held-out questions.")] = False,
    against: Annotated[list[str] | None, typer.Option(help="Held-out questions; default: the recipe's evaluation.")] = None,
    clean: Annotated[Path | None, typer.Option(help="Folder for copies of the sources without what gives them away.")] = None,
) -> None:
    """What the mixes of a recipe really hold: counts, lengths, a masked sample in colour."""
    from tulu.config.load import load_recipe

    loaded = load_recipe(recipe, overrides or ())
    from tulu.commands.data import report

    if not decontaminate and (against or clean):
        raise RecipeError("--against and --clean belong to --decontaminate; add it")
    report(loaded, decontaminate, against or (), clean)


def recipes(
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of a recipe, for editors.")] = False,
    fields: Annotated[bool, typer.Option("--fields", help="Print every field as Markdown tables.")] = False,
) -> None:
    """List the built-in recipes."""
    if schema or fields:
        from tulu.config.document import json_schema, markdown

        typer.echo(json_schema() if schema else markdown(), nl=False)
        return
    from rich.console import Console
    from rich.table import Table

    from tulu.config.load import STAGES, built_in
    from tulu.config.yaml_text import read_yaml

    table = Table(box=None, pad_edge=False)
    for column in ("recipe", "stages", "about"):
        table.add_column(column)
    for path in built_in():
        comments = (line.removeprefix("#").strip() for line in path.read_text(encoding="utf-8").splitlines() if line[:1] == "#")
        about = next(line for line in comments if line and not line.startswith("yaml-language-server"))
        held = read_yaml(path).value
        table.add_row(path.stem, " ".join(stage for stage in (*STAGES, "evaluate") if stage in held), about)
    Console().print(table)


def plan(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe file, or a built-in one by name.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="KEY.PATH=VALUE", help="Fields to override.")] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="Training processes (GPUs).")] = None,
    gpu: Annotated[Gpu | None, typer.Option(help="Estimate the time on this GPU.")] = None,
    price: Annotated[float | None, typer.Option(min=0, help="Of one GPU for one hour.")] = None,
    mfu: Annotated[float, typer.Option(min=0.01, max=1, help="Share of the GPU's peak that training reaches.")] = 0.4,
    parameters: Annotated[float | None, typer.Option(min=1, help="Of the model, if its config is not here: 7.3e9.")] = None,
    rows: Annotated[int | None, typer.Option(min=1, help="Rows of a mix that cannot be counted here.")] = None,
    tokens: Annotated[float | None, typer.Option(min=1, help="Mean tokens of a sequence.")] = None,
) -> None:
    """Batch, memory, time and cost of a recipe, before a GPU is lit."""
    from tulu.config.load import load_recipe
    from tulu.config.plan import Options

    if price is not None and gpu is None:
        raise RecipeError("--price needs --gpu a100, h100 or h200")
    options = Options(processes, gpu, price, mfu, parameters, tokens, rows)
    show_plan(load_recipe(recipe, overrides or (), processes), options)


def show_plan(recipe: "Recipe", options: "Options | None" = None, only: str | None = None, start: str | None = None) -> None:
    """Print the resolved recipe and its plan, or those of one stage."""
    from rich.console import Console

    from tulu.commands.plan import show
    from tulu.config.plan import Options

    show(recipe, options or Options(), Console(), only, start)


def evaluate_model(model: str, task: str, data: str | None, template: str, options: dict[str, Any]) -> None:
    """`tulu evaluate MODEL`: check the options as a recipe's, then evaluate."""
    from tulu.evaluation.evaluate import evaluate_model as run

    run(model, task, data, template=template, **options)

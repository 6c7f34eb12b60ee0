"""Named templates against what their originals render, and templates in files that a recipe names."""

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers.utils.chat_template_utils import render_jinja_template

from tests.config.conversations import TOOLS, Asked, asked_of, turns
from tests.config.recipe_text import GOOD
from tulu.config.job import template_of
from tulu.config.load import dump, load_recipe
from tulu.config.templates import TEMPLATES, name_problem, source_hash, source_of
from tulu.errors import RecipeError

Write = Callable[[str], str]
ORIGINALS = yaml.safe_load((Path(__file__).parent / "rendered_templates.yaml").read_text(encoding="utf-8"))
TABLE = yaml.safe_load((Path(__file__).parents[2] / "tulu" / "config" / "templates.yaml").read_text(encoding="utf-8"))
OWN = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)
SYSTEMLESS = {"qwen_instruct_user_boxed_math"}
"""Templates whose originals leave out a system's turn without notice; ours refuse it."""


def render(name: str, asked: Asked) -> str:
    """A conversation through a named template."""
    options: Any = {"conversations": [asked["messages"]], "tools": asked["tools"], "bos_token": "<bos>", "eos_token": "<eos>"}
    prompt = asked["add_generation_prompt"]
    texts: Any = render_jinja_template(chat_template=TEMPLATES[name], add_generation_prompt=prompt, **options)[0]
    return str(texts[0])


def ask(messages: list[dict[str, object]], prompt: bool = False, tools: Any = None) -> Asked:
    return {"messages": messages, "tools": tools, "add_generation_prompt": prompt}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_named_template_renders_what_its_original_renders(name: str) -> None:
    original, system = ORIGINALS[name], name not in SYSTEMLESS
    contents = ("Be kind.", "1+1=?", "<think>\nOne more.\n</think>\n\n2", "2+2=?", "<think>\nTwo more.\n</think>\n\n4")
    chat = turns("suaua", contents) if system else turns("uaua", contents[1:])
    assert render(name, ask(chat)) == original["conversation"]
    assert render(name, ask(turns("u", ("1+1=?",)), prompt=True)) == original["prompt"]
    texts = [render(name, asked) for asked in asked_of(TABLE[name]["text"], system)]
    assert len(texts) > 300
    assert hashlib.sha256("\0".join(texts).encode()).hexdigest() == original["digest"]


def test_every_original_has_its_template() -> None:
    assert set(TEMPLATES) == set(ORIGINALS) == set(TABLE)


def test_olmo_3_writes_tools_as_ollama_does() -> None:
    """The texts that ollama's renderer of the same models is tested with (model/renderers/olmo3_test.go @ fb307609)."""
    name = "olmo-3-tokenizer-instruct-dev"
    silent = "You do not currently have access to any functions. <functions></functions><|im_end|>\n"
    hello = "<|im_start|>user\nHello!<|im_end|>\n<|im_start|>assistant\n"
    helpful = "<|im_start|>system\nYou are a helpful function-calling AI assistant. "
    assert render(name, ask(turns("u", ("Hello!",)), prompt=True)) == helpful + silent + hello
    given = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    assert render(name, ask(turns("su", ("You are a helpful assistant.", "Hello!")), prompt=True)) == given + hello
    call = {"type": "function", "function": {"name": "get_weather", "arguments": {"location": "San Francisco"}}}
    chat = turns("uatt", ("Get weather in SF and NYC", "", '{"temperature": 68}', '{"temperature": 55}'))
    chat[1]["tool_calls"] = [call, {"function": {"name": "get_weather", "arguments": {"location": "New York", "days": 2}}}]
    shown = render(name, ask(chat, prompt=True, tools=TOOLS))
    lines = 'get_weather(location="San Francisco")\nget_weather(location="New York", days=2)'
    calls = f"<function_calls>{lines}</function_calls><|im_end|>\n"
    results = "".join(f'<|im_start|>environment\n{{"temperature": {degrees}}}<|im_end|>\n' for degrees in (68, 55))
    assert shown.endswith(f"<|im_start|>assistant\n{calls}{results}<|im_start|>assistant\n")
    assert '<functions>[{"type": "function", "function": {"name": "look"' in shown


def test_names_of_scripts_that_are_no_templates_are_explained() -> None:
    assert "olmo-3-tokenizer-instruct-dev" in str(name_problem("olmo123"))
    assert "leaves the questions out" in str(name_problem("assistant_message_only"))
    assert "did you mean olmo_thinker?" in str(name_problem("olmo_tinker"))
    assert name_problem("tokenizer") is name_problem("tokenizer:rag") is name_problem("zephyr") is None


def test_a_file_lies_beside_the_recipe_or_where_an_override_says(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write(GOOD.replace("template: tulu", "template: own/mine.jinja"))
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mine.jinja").write_text(OWN)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "other.jinja").write_text(OWN + "{# other #}")
    recipe = str(Path(recipe).resolve())
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "rows.jsonl").write_text("{}")
    loaded = load_recipe(recipe)
    assert loaded.template == str(tmp_path / "own" / "mine.jinja")
    assert source_of(loaded.template) == OWN
    overridden = load_recipe(recipe, ["template=other.jinja"])
    assert overridden.template == str(tmp_path / "elsewhere" / "other.jinja")
    # What is written into the run folder is read from there too.
    (tmp_path / "saved.yaml").write_text(dump(loaded))
    assert load_recipe(str(tmp_path / "saved.yaml")).template == loaded.template


def test_a_stage_may_have_a_template_of_its_own(write: Write) -> None:
    recipe = load_recipe(write(GOOD), ["template=olmo_thinker", "sft.template=olmo_thinker_no_think_7b"])
    assert template_of(recipe, recipe.sft) == ("olmo_thinker_no_think_7b", None)
    assert template_of(recipe, recipe.dpo) == template_of(recipe, None) == ("olmo_thinker", None)


FILES = [
    (None, "no such file; correct the path (it begins where the recipe lies, that of an override here)"),
    (b"\xff\xfe{{", "cannot be read"),
    (b"{% for m in messages %}\n{{ m['content'] }}\n", 'mine.jinja": line 2: is no Jinja'),
    (
        b"{{ messages }}\n{{ nothing.at.all }}",
        "line 2: does not render a conversation of one question and its answer: 'nothing'",
    ),
    (b"{{ raise_exception('never') }}", "does not render a conversation of one question and its answer: never"),
    (b"{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "calls itself without end"),
    (b"", "leaves out what the assistant says"),
    (b"{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}{% endif %}{% endfor %}", "leaves out what"),
]


@pytest.mark.parametrize(("content", "message"), FILES, ids=[str(message)[:24] for _, message in FILES])
def test_a_file_that_does_not_render_is_one_message(write: Write, content: bytes | None, message: str, tmp_path: Path) -> None:
    recipe = write(GOOD.replace("template: tulu", "template: mine.jinja"))
    if content is not None:
        (tmp_path / "mine.jinja").write_bytes(content)
    with pytest.raises(RecipeError) as error:
        load_recipe(recipe)
    assert message in str(error.value)
    assert str(error.value).count("template: ") == 1
    assert error.value.exit_code == 2


@pytest.mark.parametrize(
    "source",
    [
        "{%- for m in messages -%}{% generation %}{{ m.content }}{% endgeneration %}{{ tools | tojson }}{%- endfor -%}",
        "{% for m in messages %}{{ m['content'][0]['text'] }}{% endfor %}",
        "{% if messages[0]['role'] != 'system' %}{{ raise_exception('rules first') }}{% endif %}{{ messages[-1]['content'] }}",
        "{% for m in messages %}{% if loop.index > 9 %}{% break %}{% endif %}{{ m.content + strftime_now('%Y') }}{% endfor %}",
    ],
)
def test_what_transformers_renders_is_taken(source: str, tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text(source)
    assert source_of(str(tmp_path / "mine.jinja")) == source


def test_a_pinned_hash_refuses_another_text(write: Write, tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text(OWN)
    pinned = GOOD.replace("template: tulu", f"template: mine.jinja\ntemplate_hash: {source_hash(OWN)}")
    assert load_recipe(write(pinned)).template_hash == source_hash(OWN)
    (tmp_path / "mine.jinja").write_text(OWN + " ")
    changed = source_hash(OWN + " ")
    with pytest.raises(
        RecipeError, match=rf"template_hash: .{source_hash(OWN)}.: the template's hash is {changed}, .* or pin {changed}"
    ):
        load_recipe(write(pinned))
    with pytest.raises(RecipeError, match=r"template_hash: .0{16}.: the template's hash is"):
        load_recipe(write(GOOD), [f"template_hash='{'0' * 16}'"])
    with pytest.raises(RecipeError, match=r"sft.template_hash: .*the template's hash is"):
        load_recipe(write(GOOD), ["sft.template=olmo", f"sft.template_hash='{'0' * 16}'"])
    with pytest.raises(RecipeError, match=r"sft.template_hash: .*the stage has no template of its own"):
        load_recipe(write(GOOD), [f"sft.template_hash='{'0' * 16}'"])
    with pytest.raises(RecipeError, match=r"template_hash: .*should"):
        load_recipe(write(GOOD), ["template_hash=nothing"])


def test_another_template_or_model_leaves_the_pin_behind(write: Write) -> None:
    pinned = GOOD.replace("template: tulu", f"template: tulu\ntemplate_hash: {source_hash(TEMPLATES['tulu'])}")
    assert load_recipe(write(pinned), ["template=olmo"]).template_hash is None
    # A named template is the same with every model; a tokenizer's own is not.
    assert load_recipe(write(pinned), ["model=owner/other"]).template_hash == source_hash(TEMPLATES["tulu"])
    brought = GOOD.replace("template: tulu", f"template: tokenizer\ntemplate_hash: '{'0' * 16}'")
    assert load_recipe(write(brought)).template_hash == "0" * 16
    assert load_recipe(write(brought), ["model=owner/other"]).template_hash is None


def test_templates_of_reward_models_and_stages_are_checked_too(write: Write) -> None:
    with pytest.raises(RecipeError) as error:
        load_recipe(write(GOOD), ["rlvr.reward_model={path: owner/rm, template: tuluu}", "dpo.template=gone.jinja"])
    assert 'rlvr.reward_model.template: "tuluu": unknown template; did you mean tulu?' in str(error.value)
    assert "dpo.template: " in str(error.value)
    assert "gone.jinja" in str(error.value)


def test_a_file_is_tried_without_importing_torch(tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text("{{ nothing.at.all }}")
    code = (
        "import sys; from tulu.errors import RecipeError; from tulu.config.templates import source_of\n"
        f"try: source_of({str(tmp_path / 'mine.jinja')!r})\n"
        "except RecipeError as error: print(error)\n"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "does not render" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"

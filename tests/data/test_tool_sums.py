"""The demonstrations with a tool: every call is one that the environment runs, and what it says is what the tool says."""

from tests.environments.test_turns import TEMPLATE
from tulu.data.chat import encode_batch, make_byte_tokenizer
from tulu.data.sums import PYTHON_TOOL, rows
from tulu.environments.python_sandbox import PythonSandbox
from tulu.environments.turns import Turns


def test_a_demonstration_is_an_episode() -> None:
    tokenizer = make_byte_tokenizer()
    tokenizer.chat_template = TEMPLATE
    turns, sandbox = Turns(tokenizer, [PYTHON_TOOL]), PythonSandbox()
    turns.check()
    made = rows("tools", 8, seed=1)
    assert {len(row["messages"]) for row in made} == {2, 4}
    [row, *_] = [row["messages"] for row in made if len(row["messages"]) == 4]
    encoded = encode_batch(tokenizer, [row], "all", [[PYTHON_TOOL]])[0]
    (first, end), (second, last) = encoded.spans
    # The policy's turn calls the sandbox; its result, rendered as in an episode, is what stands between the turns.
    [call] = turns.read(encoded.tokens[first:end], 0)
    result = sandbox.python(**call.arguments)
    assert result == row[2]["content"] == row[3]["content"]
    assert encoded.tokens[end:second] == turns.after([call], [result])
    assert last == len(encoded.tokens)

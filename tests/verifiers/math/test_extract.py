# ruff: noqa: E501 (many short cases on a line)
"""Where the answer of a solution stands, in all forms that people give it."""

import pytest

from tulu.verifiers.math.verifier import MATH

CASES = [  # (completion, gold, score)
    (r"**Answer:** 42", r"42", 1), ('**Final Answer:**\n\n$$\n42\n$$', r"42", 1), ('**Final Answer:**\n\\[10 - 2\\sqrt{5}\\]', r"10-2\sqrt5", 1),
    (r"\[ 17 \]", r"17", 1), (r"$$17$$", r"17", 1), (r"Thus \( x=42 \).", r"42", 1), (r"Final Answer: The final answer is 6.25", r"6.25", 1),
    (r"\$7", r"7", 1), (r"= 8", r"8", 1), (r"15 cm", r"15", 1), (r"A. 5", r"5", 1), (r"A. 5", r"A", 1), (r"A) 5", r"A", 1), (r"A) 5", r"5", 1),
    (r"I don't think the answer is 12", r"12", 0), (r"I do not think that the answer is 12.", r"12", 0), (r"The answer is not 12.", r"12", 0),
    (r"The answer isn't 12", r"12", 0), (r"$12$ is not the answer.", r"12", 0), (r"\boxed{1} and \boxed{2}", r"1,2", 1),
    (r"$\boxed{1}$, $\boxed{2}$", r"\{1,2\}", 1), (r"$x=\boxed{1}$ and $y=\boxed{2}$", r"(1,2)", 1), (r"\boxed{2} and \boxed{1}", r"(1,2)", 0),
    (r"\boxed{1} and \boxed{2}", r"2", 1), (r"\boxed{2} and \boxed{1}", r"2", 0), (r"\boxed{1}", r"\boxed{1} and \boxed{2}", 0),
    (r"\boxed{1} or \boxed{2}", r"\boxed{1} and \boxed{2}", 1),
    (r"First \boxed{7}. A long text follows here that has nothing to do with it. Then \boxed{1}, \boxed{2}", r"1,2", 1),
    (r"The answer is $x=1$ and $y=2$.", r"(1,2)", 1), (r"The answer is 42, because 40+2=42.", r"42", 1), (r"The answer is **42**.", r"42", 1),
    (r"The final answer is: $\frac12$", r"0.5", 1), (r"Answer: 12 or 13", r"12", 0), (r"answer: \(5\)", r"5", 1),
    ('So the answer is\n\n$$x = 5$$', r"5", 1), ('The answer is:\n\n**5**', r"5", 1), (r"The answer is 5 apples.", r"5", 1), (r"42", r"42", 1),
    (r"$42$", r"42", 1), (r"**42**", r"42", 1), (r"42.", r"42", 1), ('\ufeff42', r"42", 1), ('```\n42\n```', r"42", 1), (r"\text{42}", r"42", 1),
    (r"$\text{42}$", r"42", 1), ('\u200b42', r"42", 1), (r" 42 ", r"42", 1), ('4\u200b2', r"42", 1), (r"\[42\]", r"42", 1), (r"\(42\)", r"42", 1),
    (r"`42`", r"42", 1), (r"*42*", r"42", 1), (r"$\displaystyle 42$", r"42", 1), (r"42,", r"42", 1), (r"\boxed{42.}", r"42", 1),
    (r"\boxed{$42$}", r"42", 1), (r"\boxed{\text{42}}", r"42", 1), (r"\boxed{**42**}", r"42", 1), (r"\boxed{\mathbf{42}}", r"42", 1),
    (r"\boxed{ 42 }", r"42", 1), ('```latex\n\\boxed{42}\n```', r"42", 1), (r"<answer>42</answer>", r"42", 1), (r"<answer>$42$</answer>", r"42", 1),
    (r"<answer>\boxed{42}</answer>", r"42", 1), (r"#### 42", r"42", 1), (r"\boxed{42}\checkmark", r"42", 1), (r"{1,2}", r"\{1,2\}", 1),
    (r"$\{1,2\}$", r"\{1,2\}", 1), (r"**$\{1,2\}$**", r"\{1,2\}", 1), (r"$\text{\{1,2\}}$", r"\{1,2\}", 1), (r"\frac12", r"\frac12", 1),
    (r"**\frac12**", r"\frac12", 1), ('```\n\\frac12\n```', r"\frac12", 1), (r"$$\frac{1}{2}.$$", r"\frac12", 1),
    (r"The answer is 12? No.", r"12", 0), (r"12 is my guess, or maybe 13", r"12", 0), (r"Monday", r"\text{Monday}", 1),
    (r"\boxed{\text{Monday.}}", r"Monday", 1), (r"The cost is \$7.", r"7", 1), (r"The total is $7.", r"7", 1),
    (r"<think>\boxed{1}</think> The answer is $x = \frac{3}{4}$.", r"0.75", 1), (r"We get $x=3$. Hence the area is $12\text{ cm}^2$.", r"12", 1),
    (r"Therefore, $x\in[1,2]$", r"[1,2]", 1), (r"The correct answer is (B).", r"B", 1), (r"The correct option is B", r"B", 1),
    (r"Answer: (B) 12", r"12", 1),
]  # fmt: skip


@pytest.mark.parametrize(("completion", "gold", "score"), CASES)
def test_the_answer_is_where_it_stands(completion: str, gold: str, score: float) -> None:
    assert MATH(completion, gold).score == score

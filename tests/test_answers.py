"""Where a final answer is found, and where it must not be."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reagent_env.answers import ANSWER_STYLES, final_answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"So it is \boxed{42}.", "42"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\boxed{7}}", "7"),
        (r"\boxed {7}", "7"),
        (r"\boxed{7} and, once more, \boxed{ 7 }", "7"),
        (r"Put it in \boxed{}: \boxed{7}", "7"),
        (r"<think>\boxed{1}</think> \boxed{2}", "2"),
        (r"\boxed{1} was my thought</think> \boxed{2}", "2"),
        (r'The 6" pipe: \boxed{3}, not the 5" one.', "3"),
        (r"It's the pupils' choice: \boxed{3}", "3"),
        (r'\boxed{He said "hi"}', 'He said "hi"'),
        ("\\boxed{2}\n\n> \\boxed{3}", "2"),
    ],
)
def test_the_one_boxed_value_is_the_answer(text, answer):
    assert final_answer(text) == answer


@pytest.mark.parametrize(
    "text",
    [
        "42",
        "Final Answer: 42",
        r"\boxed{1} or \boxed{2}",
        r"\boxed{1} and \boxed{\boxed{2}}",
        r"\boxed{1 \boxed{2}}",
        r"\boxed{\boxed{\boxed{\boxed{1}}}}",
        r"\boxed{1",
        r"\boxed{1} \boxed{2",
        r"\boxed{}",
        r"\\boxed{1}",
        r"\boxed 1",
        r"<think>\boxed{1}</think>",
        r"<think>\boxed{1}",
        r"<THINK>\boxed{1}</THINK>",
        r"<think><think></think>\boxed{1}</think>",
        r'<tool_call>{"name": "x", "arguments": {"a": "\boxed{1}"}}</tool_call>',
        r"<tool_response>\boxed{1}</tool_response>",
        r"<tool_call>\boxed{1}",
        "```\n\\boxed{1}\n```",
        "~~~python\n\\boxed{1}",
        "````\n```\n\\boxed{1}\n````",
        r"`\boxed{1}`",
        r"``a ` \boxed{1}``",
        r"> \boxed{1}",
        r'The page says "the answer is \boxed{1}".',
        r"The page says “the answer is \boxed{1}”.",
        r"«\boxed{1}»",
        r"'\boxed{1}'",
        r"``\boxed{1}''",
        r"<!-- \boxed{1} -->",
        "",
    ],
)
def test_no_answer_is_found_in_what_is_hedged_thought_quoted_or_code(text):
    assert final_answer(text) is None


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Thought: done\nFinal Answer: 42", "42"),
        ("**Final Answer:** 42", "42"),
        ("Final Answer:\n42", "42"),
        (r"Final Answer: \boxed{42}", "42"),
        ("Final Answer: 42\nFinal Answer: 42", "42"),
        ("Final Answer: 42\nFinal Answer: 43", None),
        ("I know the Final Answer: 42", None),
        ("<think>\nFinal Answer: 42\n</think>", None),
        ("```\nFinal Answer: 42\n```", None),
        ("> Final Answer: 42", None),
        ("Final Answer:", None),
        (r"\boxed{42}", None),
    ],
)
def test_react_answers_stand_on_a_line_of_their_own(text, answer):
    assert final_answer(text, "react") == answer


def test_an_unknown_style_is_refused_by_name():
    with pytest.raises(ValueError, match="boxed, react"):
        final_answer("42", "latex")


PIECES = st.sampled_from(
    [
        "\\boxed{",
        "}",
        "{",
        "`",
        "```",
        "~~~",
        "\n",
        "\n\n",
        '"',
        "“",
        "”",
        "'",
        "``",
        "''",
        "> ",
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "<!--",
        "-->",
        "\\",
        "7",
        "\ud800",
        "Final Answer:",
        " ",
    ]
)


@settings(max_examples=400, deadline=None)
@given(text=st.lists(PIECES, max_size=40).map("".join), style=st.sampled_from(ANSWER_STYLES))
def test_whatever_is_written_gives_text_or_none(text, style):
    answer = final_answer(text, style)
    assert answer is None or answer.strip()


@settings(max_examples=200, deadline=None)
@given(
    before=st.text(alphabet="abc .,\n", max_size=30), answer=st.text(alphabet="abc123", min_size=1)
)
def test_plain_prose_before_a_box_never_hides_it(before, answer):
    assert final_answer(f"{before}\\boxed{{{answer}}}") == answer


@pytest.mark.parametrize(
    "piece",
    [
        "\\boxed{",
        "'\\boxed{",
        "\\boxed{1}",
        "`",
        "``` \n",
        '"',
        "“",
        "'",
        "``",
        "<think>",
        "</think>",
        "<!--",
        "> ",
        "{",
        "}",
        "Final Answer:\n",
        "Final Answer: 1\n",
        "\\",
        "a",
        "` `` ",
        "\n\n",
    ],
)
def test_many_characters_of_one_trick_take_linear_time(piece):
    text = piece * (300_000 // len(piece))
    started = time.process_time()
    final_answer(text)
    final_answer(text, "react")
    assert time.process_time() - started < 4

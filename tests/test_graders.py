"""Graders: what is right scores 1, and what a policy would try in place of it scores nothing."""

import concurrent.futures
import math
import os
import re
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reagent_env import math_checking
from reagent_env.graders import (
    GraderError,
    get_grader,
    grade,
    grader_names,
    is_registered,
    problem_with,
    register_grader,
)
from reagent_env.math_checking import mathematically_equal
from reagent_env.plain_text import plain_text, undressed, without_name
from reagent_env.task import Task


def score(grader, answer, prediction, **options):
    task = Task(question="q", answer=answer, grader=grader, metadata={"grader_options": options})
    return grade(task, prediction)


@pytest.mark.parametrize(
    ("answer", "prediction"),
    [
        ("The Beatles", "beatles"),
        ("U.S.", "US"),
        ("Café", "Cafe\u0301"),
        ("Paris", r"\text{Paris}"),
        ("O'Brien", "O’Brien"),
        (["NYC", "New York City"], "new york city"),
        ("1200", "1,200"),
        ("A", "A"),
        (2020, "2020"),
    ],
)
def test_exact_forgives_case_articles_punctuation_and_latex_dress(answer, prediction):
    assert score("exact", answer, prediction) == 1


@pytest.mark.parametrize(
    ("answer", "prediction"),
    [
        ("1213", "12,13"),
        ("1213", "12-13"),
        ("1213", "12/13"),
        ("1213", "12;13"),
        ("1213", "12.1.3"),
        ("314", "3.14"),
        ("5", "-5"),
        ("A", "the"),
        ("+", "-"),
        ("Paris", "Paris or London"),
        ("Paris", "Paris, London"),
        ("Paris", "not Paris"),
        ("12", "１２"),
    ],
)
def test_exact_does_not_run_numbers_together_nor_take_lists(answer, prediction):
    assert score("exact", answer, prediction) == 0


def test_qa_pays_partial_answers_as_f1_from_the_threshold_on():
    assert score("qa", "Ada Lovelace", "Ada Lovelace") == 1
    assert score("qa", "Ada Lovelace", "Lovelace") == pytest.approx(2 / 3)
    assert score("qa", "one two three four five six seven", "one") == 0  # F1 = 0.25
    assert score("qa", ["x", "Ada Lovelace"], "Lovelace") == pytest.approx(2 / 3)


def test_the_published_rule_pays_candidate_lists_and_ours_does_not():
    assert score("qa", "Paris", "Paris or London", published=True) == 0.5
    assert score("qa", "Paris", "Paris or London") == 0
    assert score("f1", "Paris", "Paris London Rome") == 0.5


@pytest.mark.parametrize("many", [2, 3, 4, 5, 10, 100])
@pytest.mark.parametrize("separator", [" ", ", ", " and ", " or ", "; ", " / ", "\n"])
def test_a_box_with_many_candidates_earns_less_than_a_guess_among_them(many, separator):
    candidates = [f"name{i}" for i in range(many)]
    assert score("exact", "name0", separator.join(candidates)) == 0
    assert score("qa", "name0", separator.join(candidates)) < 1 / many
    options = {chr(65 + i): name for i, name in enumerate(candidates[:26])}
    assert score("choice", "A", separator.join(options), options=options) == 0
    assert score("choice", "A", separator.join(candidates[:26]), options=options) == 0


@pytest.mark.parametrize(
    "prediction", ["yes", "Yes.", "YES", "Yes, it does.", r"\text{yes}", "true"]
)
def test_yes_no_takes_the_word(prediction):
    assert score("yes_no", "yes", prediction) == 1
    assert score("yes_no", True, prediction) == 1
    assert score("yes_no", "no", prediction) == 0


@pytest.mark.parametrize(
    "prediction",
    [
        "unknown",
        "no idea",
        "I have no idea",
        "yes and no",
        "yes. no.",
        "yes or no",
        "yes/no",
        "not yes",
        "notable",
        "nothing",
        "yesterday",
        "yes, but no",
        "maybe",
        "y e s",
        "",
        "?",
    ],
)
def test_yes_no_takes_no_hedge_for_either(prediction):
    assert score("yes_no", "yes", prediction) == score("yes_no", "no", prediction) == 0


@pytest.mark.parametrize(
    "prediction", ["B", "b", "(B)", "B.", "B. Rome", "B) Rome", "Rome", "option B"]
)
def test_choice_takes_the_letter_or_the_text(prediction):
    assert score("choice", "B", prediction, options=["Paris", "Rome", "Oslo"]) == 1
    assert score("choice", "Rome", prediction, options=["Paris", "Rome", "Oslo"]) == 1


@pytest.mark.parametrize(
    "prediction", ["A", "A, B", "AB", "A or B", "B. Paris", "Paris Rome", "B C", "all", "D", "Bern"]
)
def test_choice_takes_nothing_else(prediction):
    assert score("choice", "B", prediction, options=["Paris", "Rome", "Oslo"]) == 0


def test_list_needs_the_order_and_set_does_not():
    assert score("list", ["2", "2", "3"], "2, 2, 3") == 1
    assert score("list", ["2", "2", "3"], "[2, 2, 3.0]") == 1
    assert score("list", ["2", "2", "3"], "3, 2, 2") == 0
    assert score("set", ["2", "2", "3"], "3, 2, 2") == 1
    assert score("set", ["2", "2", "3"], "2, 3") == 0
    assert score("set", ["2", "3"], "1, 2, 3, 4") == 0
    assert score("list", ["1", "2"], "1 2") == 1
    assert score("set", ["New York", "Rome"], "Rome and New York") == 1


@pytest.mark.parametrize(
    "prediction",
    [
        "12",
        "12.0",
        "+12",
        "12 km",
        "12km",
        "12 kilometres",
        "12,000 m",
        "12000 metres",
        "$12$",
        "1.2e1",
        r"1.2 \times 10^1",
        "12.",
        r"12 \text{ km}",
    ],
)
def test_number_takes_the_value_in_the_right_unit_or_none(prediction):
    assert score("number", "12 km", prediction) == 1


@pytest.mark.parametrize(
    "prediction",
    [
        "12 kg",
        "12 m",
        "12%",
        "-12",
        "12, 13, 14",
        "12 13",
        "12-13",
        "10-20",
        "12 to 13",
        "12 or 13",
        "11, 12, 13",
        "12±1",
        ">11",
        "about 12 or 13",
        "about",
        "1,2",
        "12,0",
        "nan",
        "inf",
        "-Infinity",
        "1e999",
        "1e99999999",
        "١٢",
        "１２",
        "12 thousand",
        "12²",
        "0x0c",
        "twelve thirteen",
        "thirteen",
        "ſix",
        "12 km 13 km",
        "12 miles",
        "1" * 5000,
        "12" + " " * 9000 + "3",
        "9" * 999 + "e400",
        "12/0",
    ],
)
def test_number_takes_no_list_range_other_unit_or_exotic_digits(prediction):
    assert score("number", "12 km", prediction) == 0


def test_a_calculation_is_not_its_result():
    """Or echoing the question "What is 2 + 3?" would be the answer to it."""
    for echo in ("24/2", r"\frac{24}{2}", "6 * 2", "10 + 2", "14-2", r"6 \times 2", "2^3+4"):
        assert score("number", "12", echo) == score("math", "12", echo) == 0
    for echo in (r"\sqrt{144}", r"\sum_{i=1}^{3} 4", r"3!+6", r"\binom{12}{1}", r"x = 10 + 2"):
        assert score("math", "12", echo) == 0
    for echo in ("0.25 + 0.25", "2/2/2", r"\frac{\frac{1}{1}}{2}"):
        assert score("math", "0.5", echo) == 0
    for same in ("-0.5", r"-\frac{1}{2}", r"x = -\frac12", r"-5 \times 10^{-1}", "-1/2"):
        assert score("math", "-0.5", same) == 1, same
    assert score("math", "45", r"45^{\circ}") == score("math", "45", r"x = 45^\circ") == 1
    assert score("number", "0.5", "1/2") == score("number", "3/4", r"\frac{6}{8}") == 1


def test_number_is_exact_for_whole_answers_unless_told():
    assert score("number", 10**15, str(10**15 + 1)) == 0
    assert score("number", 10**15, str(10**15 + 1), rel_tol=1e-9) == 1
    assert score("number", 100, "100.4", abs_tol=0.5) == 1
    assert score("number", 0.1, "0.10000000001") == 1
    assert score("number", 0.1, "0.1001") == 0


def test_number_reads_percents_and_money():
    assert score("number", 50, "50%", unit="%") == score("number", 50, "50", unit="%") == 1
    assert score("number", 50, "0.5", unit="%") == 0
    assert score("number", 0.5, "50%") == score("number", "50%", "50 percent") == 1
    assert score("number", 1200, "$1,200.00", unit="$") == 1
    assert score("number", 1200, "€1,200", unit="$") == 0
    assert score("number", 18, "18 eggs", any_unit=True) == 1
    assert score("number", 18, "18 or 19", any_unit=True) == 0


@pytest.mark.parametrize(
    ("answer", "prediction"),
    [
        (r"\frac{1}{2}", "0.5"),
        ("1/2", r"\frac12"),
        ("2", "x = 2"),
        ("x^2+2x+1", "(x+1)^2"),
        (r"\{1,2\}", "2, 1"),
        (r"2\sqrt{3}", r"\sqrt{12}"),
    ],
)
def test_math_takes_equal_expressions(answer, prediction):
    assert score("math", answer, prediction) == 1


@pytest.mark.parametrize(
    ("answer", "prediction"),
    [
        ("2", "1, 2, 3"),
        ("2", "1 2"),
        ("2", "2 or 3"),
        ("2", r"2 \text{ or } 3"),
        ("2", "1 = 2"),
        ("2", "x = 1 = 2"),
        ("2", r"\pm 2"),
        ("2", "x > 1"),
        ("2", "[1, 3]"),
        ("2", r"\boxed{2} \boxed{3}"),
        ("2", "$2$ $3$"),
        ("2", "٢"),
        ("2", r"\infty"),
        ("2", "nan"),
        ("(1,2)", "(2,1)"),
        ("2", "{" * 500 + "2" + "}" * 500),
        ("2", r"\frac{" * 100),
    ],
)
def test_math_takes_no_hedge_chain_or_bomb(answer, prediction):
    assert score("math", answer, prediction) == 0


def test_an_expression_that_never_ends_scores_nothing_and_the_next_one_is_graded():
    started = time.monotonic()
    assert score("math", "2", "9^{9^{9^{9}}}") == 0
    assert time.monotonic() - started < 60
    assert score("math", "2", "2.00") == 1


def test_math_works_in_threads():
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        verdicts = list(pool.map(lambda n: score("math", str(n), f"{n}.00"), range(8)))
    assert verdicts == [1.0] * 8


@pytest.mark.parametrize("warm", [False, True])
def test_an_answer_that_cannot_be_read_is_a_grader_error_not_a_zero(warm, monkeypatch):
    checker = math_checking._Checker()
    monkeypatch.setattr(math_checking, "_checker", checker)
    monkeypatch.setattr(math_checking, "_checker_pid", os.getpid())
    if warm:
        assert score("math", "2", "2.00") == 1
    with pytest.raises(GraderError, match="another grader"):
        score("math", r"\frac{", "3")
    checker.close()


def test_an_answer_that_is_not_of_its_graders_kind_is_a_grader_error():
    for grader in ("number", "yes_no"):
        with pytest.raises(GraderError, match="needs a"):
            score(grader, "perhaps", "3")
    with pytest.raises(GraderError, match="none of the options"):
        score("choice", "Z", "A", options=["Paris"])


def test_no_answer_and_endless_answers_score_nothing():
    task = Task(question="q", answer="a", grader="exact")
    assert grade(task, None) == grade(task, "") == grade(task, "   ") == 0
    assert grade(task, "a" * 10_000_000) == 0


def test_an_unknown_grader_is_named_with_its_nearest():
    with pytest.raises(GraderError, match="Did you mean 'number'"):
        get_grader("nubmer")


def test_a_dotted_name_calls_any_function():
    assert get_grader("math:gcd") is math.gcd
    assert get_grader("operator:eq")("a", "a")
    with pytest.raises(GraderError, match="cannot be imported"):
        get_grader("no_such_module:f")


def test_a_grader_that_breaks_or_leaves_the_range_is_a_grader_error():
    register_grader("breaks")(lambda answer, prediction: 1 / 0)
    register_grader("too_much")(lambda answer, prediction: 1.5)
    register_grader("not_a_number")(lambda answer, prediction: math.nan)
    for name in ("breaks", "too_much", "not_a_number"):
        with pytest.raises(GraderError, match=name):
            score(name, "a", "b")
    with pytest.raises(ValueError, match="exists already"):
        register_grader("exact")(lambda answer, prediction: 0.0)


ANSWERS = {
    "exact": "Paris",
    "qa": ["Paris", "Lutetia"],
    "f1": "The city of Paris",
    "number": "12.5 km",
    "choice": "B",
    "yes_no": "no",
    "list": ["1", "2"],
    "set": ["a", "b"],
}
HOSTILE = st.one_of(
    st.text(max_size=60),
    st.text(alphabet="0123456789.,-+eE/%$€\\{}^_ kmgor()[]\ud800²٣", max_size=40),
    st.sampled_from(["\\frac{", "{", "\x00", "\ud800", "1e", "--5", "∞", "½", "٣"]).flatmap(
        lambda piece: st.integers(1, 3000).map(lambda n: piece * n)
    ),
)


@settings(max_examples=500, deadline=None)
@given(prediction=HOSTILE, grader=st.sampled_from(sorted(ANSWERS)))
def test_every_prediction_gets_a_score_in_range(prediction, grader):
    assert 0 <= score(grader, ANSWERS[grader], prediction) <= 1


@settings(max_examples=40, deadline=None)
@given(prediction=HOSTILE)
def test_every_prediction_gets_a_verdict_from_math(prediction):
    assert mathematically_equal("123456.789", prediction) in (True, False)


def test_every_grader_named_here_is_known():
    assert {*ANSWERS, "math"} <= set(grader_names())


def test_the_graders_load_no_symbolic_mathematics_into_this_process():
    code = "import sys, reagent_env.graders; sys.exit('sympy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("written", ["1,234 km2", "1,234 km^2", "1234 km²"])
def test_a_unit_may_end_in_its_power(written):
    assert score("number", 1234, written, unit=["km2", "km²", "km^2"]) == 1
    assert score("number", 1234, written, any_unit=True) == 1
    assert score("number", 1234, "1234 2", any_unit=True) == 0


PEOPLE = {"unit": ["inhabitants", "people", "citizens"]}
AREA = {"unit": ["square kilometres", "km²"]}
AS_MODELS_WRITE = [
    ("number", "288", {"unit": "°"}, [r"288^\circ", r"288^{\circ}", r"$288^\circ$", "288°"]),
    ("number", "288", {"unit": "°"}, ["288 degrees", r"288 \text{ degrees}", r"x = 288 ^ \circ"]),
    ("number", 583344, AREA, [r"583,344 \text{ km}^2", "583344 km^2", r"583,344\,\text{km}^2"]),
    ("number", 583344, AREA, ["583,344 square kilometers", "583,344 sq. km", "583,344 km²"]),
    ("number", 583344, AREA, [r"583,344~\mathrm{km}^{2}", r"$583{,}344$ km²", "583344 km squared"]),
    ("number", 583344, {}, [r"583\,344", "583~344", r"583,\!344", "583\u202f344", "583\u00a0344"]),
    ("number", 583344, {}, ["583 344", r"583{,}344", r"583\ 344", "583'344", "**583,344**"]),
    ("number", 118, {}, ["**118**", "≈118", r"\approx 118", "about 118", "~118", "`118`", "118."]),
    ("number", 118, {}, ["approximately 118", r"$\approx 118$", r"\textbf{118}"]),
    (
        "number",
        19,
        {},
        [
            r"\gcd = 19",
            "GCD = 19",
            "x = 19",
            "Answer: 19",
            "The answer is 19",
            r"\gcd(38, 57) = 19",
            "n_1 = 19",
        ],
    ),
    ("number", 1693, {"unit": ["AD", "CE"]}, ["1693 AD", "1693 CE", "in 1693", "1693 A.D."]),
    ("number", 1693, {"unit": ["AD", "CE"]}, ["In the year 1693", "AD 1693", "1693"]),
    ("number", 4, {}, ["four", "Four", "four.", r"\text{four}"]),
    ("number", 4, {"any_unit": True}, ["four rivers", "4 rivers"]),
    ("number", 33, {"unit": ["days", "working days"]}, ["33 working days", "33 days", "33"]),
    ("number", 46147, PEOPLE, ["46,147 citizens", "46,147 persons", "46,147 people"]),
    ("number", 1148, {"unit": ["m", "metres above sea level"]}, ["1148 meters above sea level"]),
    (
        "number",
        "810.27",
        {"unit": ["$", "€"]},
        ["$810.27", r"\$810.27", "810.27 dollars", "€810.27"],
    ),
    ("number", "4.5", {}, ["4½", "4 1/2", r"4\frac{1}{2}", r"4\tfrac12", r"\frac{9}{2}", "4.5"]),
    ("exact", "Boor", {}, [r"\text{Boor}", r"\texttt{Boor}", r"\mathtt{Boor}", r"\mathsf{Boor}"]),
    (
        "exact",
        "Boor",
        {},
        [r"\operatorname{Boor}", r"\textsc{Boor}", "**Boor**", "Boor.", "$Boor$"],
    ),
    (
        "exact",
        "Boor",
        {},
        [
            r"$\textbf{\text{Boor}}.$",
            r"**$\text{Boor}$**.",
            "answer = Boor",
            "The answer is Boor",
            "x = Boor",
        ],
    ),
    ("exact", "Mount X", {"aliases": ["Mt. X"]}, ["Mount~X", r"\text{Mount~X}", "Mt. X", "Mt X"]),
    ("exact", "River X", {"aliases": ["X River"]}, ["X River", "the River X", "the X River"]),
    ("exact", "2930", {"aliases": ["2930_{12}"]}, ["2930_{12}", "2930_12", "(2930)_{12}", "2930"]),
    ("exact", "3/4", {}, [r"\frac{3}{4}", r"\dfrac{3}{4}", r"\frac34", r"$\frac{3}{4}$"]),
    ("list", ["91.251", "62.07"], {}, [r"\left[91.251, 62.07\right]", r"91.251,\quad 62.07"]),
    ("list", ["1", "2", "3"], {}, ["[1, 2, 3]", "1, 2 and 3", "(1, 2, 3)", "x = [1, 2, 3]."]),
    ("set", ["1", "2"], {}, [r"\{1, 2\}", r"\left\{2, 1\right\}", r"$\{1,\, 2\}$"]),
    ("math", "45", {}, [r"45^{\circ}", r"45\,\text{cm}", "**45**", "x = 45", r"45 \text{ apples}"]),
    ("math", "1200", {}, [r"1,\!200", "1,200", r"1{,}200", r"\$1200", "1200."]),
    ("math", r"10\text{ cm}", {}, ["10", "10 cm", r"10~\mathrm{cm}"]),
    ("math", r"\frac{3}{2}", {}, ["1.5", r"1\frac{1}{2}", r"\tfrac32", "3/2", r"\frac{6}{4}"]),
    ("math", r"\frac{1}{3}", {}, [r"0.\overline{3}", "1/3"]),
    ("math", r"-\frac{3}{2}", {}, [r"\frac{-3}{2}", "-1.5", r"\{-\frac32\}"]),
    ("math", r"10\%", {}, ["10", "0.1", r"10\%", "10 percent"]),
    ("math", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", {}, [r"\begin{pmatrix}1\\2\end{pmatrix}"]),
    ("math", r"\text{even}", {}, ["even", "Even", r"\textbf{even}"]),
    ("math", r"\text{(C)}", {}, ["C", "(C)", r"\mathrm{C}"]),
]


@pytest.mark.parametrize(
    ("grader", "answer", "options", "written"),
    [(g, a, o, written) for g, a, o, forms in AS_MODELS_WRITE for written in forms],
)
def test_a_right_answer_is_right_however_a_model_dresses_it(grader, answer, options, written):
    assert score(grader, answer, written, **options) == 1


HEDGES = [
    ("number", 4, {"any_unit": True}, ["4 five six seven", "4 if not five", "4 maybe five", "4½"]),
    (
        "number",
        4,
        {"any_unit": True},
        ["4 oder fünf", "4 perhaps 5", "4 五", "4 Ⅴ", "4\\pi", "4 not"],
    ),
    ("number", 118, {"any_unit": True}, ["118 if not hundred", "about 118 or 119", "118 119"]),
    ("number", 1693, {"unit": ["AD", "CE"]}, ["1693 BC", "1693 AD or 1694", "in 1693-1694"]),
    ("number", 583, {}, ["583 344", r"583\,344", "583,344"]),
    ("number", 19, {}, ["x = 18 = 19", "18 = 19", "not x = 19", "x or y = 19", r"x \neq 19"]),
    ("math", "5", {}, ["5~4", r"5\mid4", "5{}4", r"5\hspace{1em}4", r"5\to4", r"5\sqcup4", "5_4"]),
    ("math", "5", {}, [r"4 \text{ , } 5", "4, 5", "5x", r"5\pi", "5 e", r"5\cup4", "5 6"]),
    ("math", "4", {}, ["5~4", r"4\mid5", "4{}5", "4|5", r"4\,5", r"\{4,5\}", r"4\lor5"]),
    ("math", "x^2", {}, [r"x^2\mid x^3", r"x^2~x^3", r"x^2\to x", r"x^2 \sqcup x"]),
    ("math", r"\text{even}", {}, ["neve", "odd", "even or odd"]),
    ("exact", "River X", {"aliases": ["X River"]}, ["River", "X or River", "River Y"]),
    ("exact", "293012", {}, ["2930_{12}"]),
    ("exact", "Paris", {}, ["London = Paris", "the answer is not Paris", "x = London = Paris"]),
    ("exact", "1f", {}, ["ff = 1f"]),
    ("exact", "b", {}, ["c = b"]),
    ("set", ["Paris"], {}, ["London = Paris", "London = [Paris]"]),
    ("number", 5, {}, ["four = 5", "not four = 5", "the answer is not 5", "fourteen ≈ 5"]),
    ("math", "5", {}, ["four = 5", "4 = 5", "x = 4 = 5"]),
]


@pytest.mark.parametrize(
    ("grader", "answer", "options", "written"),
    [(g, a, o, written) for g, a, o, forms in HEDGES for written in forms],
)
def test_a_second_thought_beside_the_answer_pays_nothing(grader, answer, options, written):
    assert score(grader, answer, written, **options) == 0


@pytest.mark.parametrize(
    ("answer", "prediction"),
    [
        ("River Plekond", "River"),
        ("River Plekond", "River Torland"),
        ("Ada Lovelace", "Ada Byron"),
        ("12 March 1693", "March"),
        ("12 March 1693", "12 March 1750"),
        ("University of Oska", "University of Torland"),
    ],
)
def test_qa_pays_nothing_for_the_words_that_many_answers_share(answer, prediction):
    assert score("qa", answer, prediction) == 0
    assert score("qa", answer, prediction, published=True) > 0


def test_qa_pays_for_the_name_without_its_kind():
    assert score("qa", "River Plekond", "Plekond") == pytest.approx(2 / 3)
    assert score("qa", "Ada Lovelace", "Countess Ada Lovelace") > 0.5


def test_only_registered_names_count_as_registered():
    assert is_registered("exact")
    register_grader("mine:own")(lambda answer, prediction: 1.0)
    assert is_registered("mine:own")
    assert not is_registered("timeit:timeit")
    assert not is_registered("nubmer")


def test_looking_for_problems_imports_and_calls_nothing_that_a_task_names(tmp_path, monkeypatch):
    (tmp_path / "planted_grader.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    task = Task("q", "a", "planted_grader:f")
    assert "must be registered" in problem_with(task)
    assert "planted_grader" not in sys.modules
    assert problem_with(Task("q", "a", "operator:eq"), allow_import=True) is None


@pytest.mark.parametrize(
    ("answer", "grader", "options", "problem"),
    [
        ("Paris", "number", {}, "needs a number"),
        ("5", "number", {"units": "km"}, "'units'.*any_unit"),
        ("5", "number", {"abs_tol": "wide"}, "wide"),
        ("5", "number", ["unit"], "mapping"),
        ("perhaps", "yes_no", {}, "yes or no"),
        ("Z", "choice", {"options": ["Paris"]}, "none of the options"),
        ("x", "set", {}, "need a list"),
        (["Paris, France", "Rome"], "list", {}, "own answer"),
        ({"a": 1}, "exact", {}, "must be a text"),
        (None, "exact", {}, "must be a text"),
        ("", "exact", {}, "own answer"),
        ([], "exact", {}, "own answer"),
        ("", "math", {}, "something in it"),
        ("a", "nubmer", {}, "(?i)known: .*choice, .*exact"),
    ],
)
def test_a_task_that_can_never_be_graded_right_is_found_without_a_prediction(
    answer, grader, options, problem
):
    task = Task("q", answer, grader, metadata={"grader_options": options})
    found = problem_with(task)
    assert found
    assert re.search(problem, found), found


@pytest.mark.parametrize(
    ("answer", "grader", "options"),
    [
        ("Paris", "exact", {}),
        (["NYC", "New York"], "qa", {"published": True}),
        (2020, "exact", {"aliases": ["MMXX"]}),
        ("-1,200.5 km", "number", {"rel_tol": 0.1}),
        (5, "number", {"any_unit": True}),
        (True, "yes_no", {}),
        ("B", "choice", {"options": ["x", "y"]}),
        (["1", "2"], "list", {}),
        (["New York", "Rome"], "set", {}),
        (r"\frac{1}{2}", "math", {}),
    ],
)
def test_a_sound_task_has_no_problem(answer, grader, options):
    task = Task("q", answer, grader, metadata={"grader_options": options})
    assert problem_with(task) is None


@settings(max_examples=300, deadline=None)
@given(text=HOSTILE)
def test_undressing_is_total_and_never_lengthens_much(text):
    for read in (plain_text, undressed, without_name):
        assert len(read(text)) <= 5 * len(text)


@pytest.mark.parametrize(
    "piece",
    [
        "\\text{",
        "{",
        "$",
        "**",
        "\\frac",
        "1,",
        "1 ",
        "\\circ",
        "^",
        "a ",
        "x = ",
        "~",
        "½",
        "(",
        "a.",
        "1'",
        "\\ ",
        "four ",
    ],
)
def test_many_characters_of_one_decoration_take_linear_time(piece):
    text = piece * (10_000 // len(piece))
    started = time.process_time()
    for grader, answer in ANSWERS.items():
        score(grader, answer, text)
    assert time.process_time() - started < 3

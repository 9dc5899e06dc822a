"""The family `reports`: what its check refuses, and whether the hidden program knows good reports from bad ones."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openk2.core import Task
from openk2.rl.gym.report_truth import key_facts
from openk2.rl.gym.reports import VARIANTS, ReportsFamily, hidden, variants
from openk2.rl.rubrics import PRESCRIPTIVE, vetoes
from openk2.worlds.families import lexicon
from shared.hanging import it_ends

FAMILY = ReportsFamily()
SPLITS = ("train", "test")


def table(focus: str, thing: str = "boats") -> Task:
    """Boats and cats of four towns; Oslo has the most boats."""
    data = {
        "level": 1, "focus": focus, "row": "town", "rows": "towns", "names": ["Oslo", "Lima", "Rome", "Bonn"],
        "things": ["boats", "cats"], "values": [[93, 12], [7, 40], [50, 31], [12, 5]], "thing": thing, "one": "Rome",
        "other": "Lima", "reader": "Anna the baker", "sentences": 3, "format": "csv",
    }  # fmt: skip
    return Task("reports/train/0", "reports", focus, 0, "", data)


@pytest.mark.parametrize("split", SPLITS)
def test_gold_is_perfect_in_truth(split) -> None:
    for seed in range(200):
        task = FAMILY.sample(split, seed)
        gold = FAMILY.gold(task)
        assert hidden(task, gold).quality == 1.0, (task.request, gold, hidden(task, gold))
        assert FAMILY.check(task, gold).passed is None and FAMILY.check(task, gold).reward is None
        assert task == FAMILY.sample(split, seed) and task.id == f"reports/{split}/{seed}"
        assert len(task.request.split()) < 120
        assert 3 <= len(task.data["names"]) <= 8 and 1 <= len(task.data["things"]) <= 3
        assert gold.count(".") <= task.data["sentences"]
        assert vetoes(gold) == []


@pytest.mark.parametrize("split", SPLITS)
def test_the_variants_are_in_the_intended_order(split) -> None:
    right = pairs = 0
    for seed in range(200):
        task = FAMILY.sample(split, seed)
        reports = variants(task, seed)
        assert reports == variants(task, seed) and len(set(reports)) == len(VARIANTS)
        graded = list(zip(VARIANTS.values(), (hidden(task, report).quality for report in reports), strict=True))
        for grade, quality in graded:
            for lower, other in graded:
                if grade > lower:
                    pairs += 1
                    right += quality > other
        assert all(FAMILY.check(task, report).passed is None for report in reports)
    print(f"{split}: {right} of {pairs} pairs in order, {right / pairs:.4f}")
    assert right / pairs >= 0.95


def test_the_padded_variants_are_what_the_prescriptive_rubrics_forbid() -> None:
    praise, justification = PRESCRIPTIVE
    for seed in range(100):
        reports = dict(zip(VARIANTS, variants(FAMILY.sample("train", seed), 0), strict=True))
        assert praise.violates(reports.pop("praise"))
        assert justification.violates(reports.pop("justification"))
        assert not any(vetoes(report) for report in reports.values())


@pytest.mark.parametrize(
    ("focus", "report", "faithfulness", "coverage"),
    [
        ("highest", "Oslo has the most boats, 93.", 1, 1),
        ("highest", "Dear Anna, Oslo leads with 93 boats.", 1, 1),
        ("highest", "The most boats are in Oslo. It has 93.", 1, 1),
        ("highest", "The highest number of boats is 93, in Oslo.", 1, 1),
        ("highest", "oslo has 93 boats, more than any other town.", 1, 1),
        ("highest", "Lima has the most boats, 93.", 0, 0),
        ("highest", "Oslo has the most boats, 39.", 1 / 2, 1 / 2 * 1 / 2 * 2),
        ("highest", "Oslo has the most cats, 12.", 1 / 2, 0),
        ("highest", "Oslo does not have the most boats.", 0, 0),
        ("highest", "Lima does not have the most boats.", 1, 0),
        ("highest", "Oslo has the most boats, 93, and Berlin the fewest.", 1 / 2, 1),
        ("highest", "Oslo has the most boats, 93, because its people love the sea.", 2 / 3, 1),
        ("highest", "Oslo has the most boats, 93. They are red.", 2 / 3, 1),
        ("highest", "It is a good report.", 0, 0),
        ("lowest", "Only seven boats are in Lima, the fewest of all.", 1, 1),
        ("range", "Oslo has the most boats with 93, while Lima has the fewest with 7.", 1, 1),
        ("range", "Boats range from 7 in Lima, the lowest, to 93 in Oslo, the highest.", 1, 1),
        ("range", "Oslo has 93 boats, the most, and Lima has 7, the fewest; the gap is 86.", 1, 1),
        ("compare", "Rome has 50 boats and Lima has 7, so Rome has more boats than Lima.", 1, 1),
        ("compare", "Rome has more boats than Lima: 50 against 7.", 1, 1),
        ("compare", "Lima has fewer boats than Rome: 7 against 50.", 1, 1),
        ("compare", "Rome and Lima have 50 and 7 boats.", 1, 2 / 3),
        ("compare", "Lima has more boats than Rome: 7 against 50.", 2 / 3, 2 / 3),
        ("row", "Rome has 50 boats and 31 cats.", 1, 1),
        ("row", "Rome has 31 boats and 50 cats.", 0, 0),
        ("total", "In total there are 162 boats in the four towns, and Oslo has the most, 93.", 1, 1),
        ("highest", "Anna, the town with the most boats is Oslo: 93.", 1, 1),
        ("highest", "With 93, Oslo has more boats than all others.", 1, 1),
        ("highest", "Oslo's 93 boats are the most in the table.", 1, 1),
        ("highest", "Top of the list is Oslo (93 boats).", 1, 1),
        ("highest", "Oslo beats Rome by 43 boats.", 1, 0),
        ("highest", "Most boats: Oslo, 93.", 1, 1),
        ("lowest", "Lima has only 7 boats, fewer than any other town.", 1, 1),
        ("lowest", "The smallest number of boats, 7, belongs to Lima.", 1, 1),
        ("lowest", "Bonn has 12 boats but Lima has the fewest with 7.", 1, 1),
        ("range", "The number of boats goes from 7 (Lima, the lowest) up to 93 (Oslo, the highest).", 1, 1),
        ("compare", "With 50 boats Rome is ahead of Lima, which has 7.", 1, 1),
        ("compare", "Rome: 50 boats. Lima: 7 boats. Rome has more than Lima.", 1, 1),
        ("row", "In Rome there are 50 boats, and the cats number 31.", 1, 1),
        ("total", "All four towns have 162 boats together. Oslo has the most with 93.", 1, 1),
        ("ranking", "First is Oslo with 93 boats, then comes Rome in second place with 50.", 1, 1),
        ("ranking", "Oslo leads with 93 boats, followed by Rome with 50.", 1, 1),
        ("highest", "Rome has the most boats, 93.", 0, 0),
        ("highest", "Oslo has the most boats, ninety-three.", 1, 0.5),
        ("range", "Oslo has the most boats (93) and Bonn the fewest (12).", 0.75, 0.5),
        ("compare", "Lima beats Rome, 50 to 7.", 0, 0),
        ("ranking", "Oslo is first with 93 boats, and Rome is second with 50.", 1, 1),
        ("ranking", "Oslo has the most boats (93), Rome comes second (50).", 1, 1),
    ],
)
def test_other_wordings_are_read(focus: str, report: str, faithfulness: float, coverage: float) -> None:
    found = hidden(table(focus), report)
    assert (found.faithfulness, found.coverage) == pytest.approx((faithfulness, coverage))
    assert found.quality == pytest.approx(faithfulness * coverage)


def everything(task: Task) -> str:
    """The whole table in one sentence."""
    cells = (
        f"{name} has {value} {thing}"
        for name, line in zip(task.data["names"], task.data["values"], strict=True)
        for value, thing in zip(line, task.data["things"], strict=True)
    )
    return f"{', '.join(cells)}."


def test_to_list_the_whole_table_loses() -> None:
    for seed in range(200):
        task = FAMILY.sample("train", seed)
        good, dump = FAMILY.gold(task), everything(task)
        assert hidden(task, dump).quality < 1.0
        assert hidden(task, f"{dump} {good}").quality < hidden(task, good).quality
        if len(task.data["names"]) * len(task.data["things"]) > 2 * len(key_facts(task.data)) + 2:
            assert hidden(task, f"{dump} {good}").quality <= 0.5
        every = " ".join(f"{name} has the most {task.data['thing']}." for name in task.data["names"])
        assert hidden(task, every).quality < 0.5
        assert hidden(task, task.request).quality < 0.5


def test_what_is_no_report_gets_nothing() -> None:
    task = FAMILY.sample("train", 3)
    for text in ("", " \n", FAMILY.gold(task) * 60, "a" * 100_000, everything(task) * 8):
        verdict = FAMILY.check(task, text)
        assert verdict.passed is False and verdict.score == 0.0
        assert hidden(task, text).quality == 0.0


def test_a_true_sentence_said_again_hides_no_wrong_one() -> None:
    task = table("highest")
    once = hidden(task, "Oslo has the most boats, 93. Rome has 4 boats.")
    again = hidden(task, "Oslo has the most boats, 93. Oslo has the most boats, 93. Rome has 4 boats.")
    assert once == again and once.faithfulness == pytest.approx(2 / 3)


def test_train_and_test_share_no_name_and_no_thing() -> None:
    things: dict[str, set[str]] = {split: set() for split in SPLITS}
    for split in SPLITS:
        for seed in range(200):
            data = FAMILY.sample(split, seed).data
            reader = data["reader"].split()
            assert all(lexicon.split_of(word) == split for word in [*data["names"], reader[0], reader[-1]]), data
            things[split].update(data["things"])
    assert things["test"] <= {lexicon.plural(noun) for noun in lexicon.nouns("test")}
    assert not things["train"] & {lexicon.plural(noun) for noun in lexicon.nouns("test")}


def test_the_critic_is_told_nothing_that_the_table_does_not_say() -> None:
    for seed in range(200):
        task = FAMILY.sample("test", seed)
        total = next((fact.value for fact in key_facts(task.data) if fact.kind == "total"), "no total")
        for text in (task.request, task.data["rubric"]):
            assert "{" not in text and str(total) not in text
        assert 2 <= task.data["rubric"].count(".") <= 4


@settings(deadline=None)
@given(st.text(st.characters(codec=None)), st.integers(0, 30))
def test_any_text_is_judged(text: str, seed: int) -> None:
    task = FAMILY.sample("train", seed)
    verdict, found = FAMILY.check(task, text), hidden(task, text)
    assert verdict.passed is not True
    assert 0.0 <= found.faithfulness <= 1.0 and 0.0 <= found.coverage <= 1.0


WORDS = """Oslo|Lima|93|7|7.5|boats|most|second|more|than|and|not|total|,|.|the|two|in|It|Berlin|%|fewer|ahead of|
third lowest|-3|1,000|(|followed by|cats""".replace("\n", "").split("|")


@settings(deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=40))
def test_any_words_of_a_report_are_judged(words: list[str]) -> None:
    assert 0.0 <= hidden(table("range"), " ".join(words)).quality <= 1.0


@pytest.mark.parametrize("piece", ["Oslo has more boats than ", "1 ", "most ", "\ud800", "A b ", "."])
def test_long_texts_have_an_end(piece: str) -> None:
    with it_ends():
        for size in (400, 1_000, 1_000_000):
            text = piece * (size // len(piece))
            FAMILY.check(table("range"), text), hidden(table("range"), text)

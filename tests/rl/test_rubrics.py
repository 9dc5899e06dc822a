"""The rubrics of the critic, and the two that a program checks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openk2.rl.rubrics import CORE, PRESCRIPTIVE, RUBRICS, explicit_justification, opening_praise, task_rubric, vetoes
from shared.hanging import it_ends

PRAISE = {
    True: """
        Great question! Oslo has 12 boats.
        That's a great question. The answer is 4.
        What a wonderful table!
        What an interesting idea, let us look at it.
        Excellent question, and one that many people ask.
        Good question: the pan holds two litres.
        I love your question!
        I really like how you asked this.
        Thank you for this excellent question. Lima leads.
        Thanks for the thoughtful request!
        You ask a very good question.
        You've raised an important point. Lima has 3.
        You are so smart to look at this.
        You're absolutely right to ask about boats.
        Hello! What a lovely question.
        Hi Anna, great question!
        Sure! That is a really clever idea.
        Your question is excellent.
        Your table is wonderfully clear and your question is very smart.
        Well done for asking!
        Bravo! The sum is 12.
        How clever of you to compare them.
        How thoughtful!
        Wow, what a fascinating data set.
        Ah, a truly beautiful question.
        This is such a nice topic.
        It is a brilliant idea to count the boats.
        Smart question. The town is Oslo.
        Nice work on the table! Oslo is first.
        Great job putting this together. Oslo is first.
        I must say, this is an outstanding request.
        I'm impressed by your table.
        Clever thinking! Oslo wins.
        Such a good point!
        Your curiosity is great.
        Fantastic choice, boats are fun.
        **Great question!** Oslo has 12 boats.
        That is a deep and important question.
        Only a brilliant mind would ask this.
        You have a great eye for detail.
        An excellent question, Tom.
        Congratulations on such a clean table!
        This is one of the best questions I have seen.
        It's wonderful that you ask.
        Love this question!
        What a smart thing to ask.
    """,
    False: """
        Great Britain exports 12 boats.
        Good questions were asked by 12 visitors.
        Good question papers cost 3 euros each.
        Oslo has the best numbers: 12 boats.
        Your question has two parts.
        Your question is about boats, and Oslo has 12.
        Thank you for the question.
        Thanks for asking. Oslo has 12 boats.
        Hello Anna, Oslo leads with 12 boats.
        Dear Tom, the table has five towns.
        Great! Oslo has 12 boats.
        Nice is a town in France.
        Nice has 12 boats and Lima 3.
        Excellent boats are sold in Oslo.
        The wonderful boats of Oslo number 12.
        What a kettle holds depends on its size.
        What you ask for is the sum: 12.
        That is a large number of boats.
        This is a table of five towns.
        It is a good year for Oslo, with 12 boats.
        I like boats.
        I can answer that: 12.
        You have 12 boats in Oslo.
        You asked about Oslo. It has 12 boats.
        You are 12 boats ahead of Lima.
        Sure, here is the report.
        Of course. Oslo has 12 boats.
        Smart phones sell best in Oslo, with 12.
        How many boats are there? Twelve.
        How clever foxes are is hard to say.
        Interesting facts are rare; Oslo has 12 boats.
        Oslo has 12 boats. That is a great number.
        Lima is first. Great question, by the way.
        Well, Oslo has 12 boats.
        Your table lists five towns.
        Your boats are in Oslo.
        Fine sand costs 3 euros.
        Good morning, Anna. Oslo has 12 boats.
        A good question is short and clear, says the teacher in row 3.
        Great Dane puppies: 4. Beagles: 12.
        Wise owls: 12.
        Beautiful Oslo has 12 boats.
        It is important to ask Anna.
        What is clear is that Oslo leads.
        Interesting: Oslo has fewer boats than Lima.
        This is important work for Oslo: 12 boats.
    """,
}
JUSTIFIED = {
    True: """
        This report is clear and concise.
        This answer fulfils your request.
        This response meets all the requirements.
        The summary above covers everything you asked for.
        My answer is good because it is short.
        I made sure that every number is correct.
        I have checked all the numbers.
        I kept it short so that Anna can read it fast.
        All numbers are taken from the table.
        Every figure comes straight from the table.
        None of the facts are made up.
        Nothing was left out.
        The report is short, as you asked.
        In two sentences, as requested.
        This is exactly what you asked for.
        That is why this report is so useful.
        By focusing on boats, this report gives Anna what she needs.
        This text follows your instructions closely.
        I hope this meets your needs.
        I believe this is a complete answer.
        This report provides a clear and accurate picture.
        I chose these two towns because they show the range best.
        The answer directly addresses the question.
        This summary is accurate and easy to read.
        You asked for one sentence, and this is one sentence.
        My report stays within the limit of two sentences.
        This report deserves the highest score.
        The response is helpful and complete.
        I focused on boats as you requested.
        This wording is simple to make it easy for the reader.
        These sentences give the reader all that is needed.
        I have included only what the focus asks for.
        This report uses only the table.
        It answers your question fully.
        Oslo leads with 12, which makes this a complete answer.
        I am confident that this answer is correct.
        This approach ensures that the reader understands the table.
        The above satisfies every constraint.
        Each statement is supported by the table.
        This report avoids needless detail and is thus a perfect summary.
        I wrote two short sentences to keep it simple.
        This response was written to be helpful and clear.
        As you can see, this report is of high quality.
        The report contains no errors.
        Both key facts are included, so the report is complete.
    """,
    False: """
        This report covers March.
        The report covers five towns.
        This table shows boats by town.
        Oslo has the most boats, 12.
        This report is about boats.
        The answer is 12.
        The answer is Oslo.
        Here is a short report.
        I hope this helps.
        You asked about Oslo: it has 12 boats.
        As requested, here are the boats of Oslo.
        All figures are in euros.
        All towns have more than three boats.
        Every town has a boat.
        The numbers fell in May.
        Each boat has a name.
        This bridge meets all safety rules.
        This meets the target of 40 boats.
        The boat is safe and easy to use.
        Oslo needs 12 boats because it is large.
        I counted the boats in Oslo.
        I chose the red boat.
        The summary is below.
        The message was sent on Monday.
        The response time is 12 ms.
        Lima follows with 3 boats.
        The focus is on boats.
        The text has 12 pages.
        The note was short.
        Nothing was sold in May.
        Everything was sold by Friday.
        The town followed the rules in May.
        It has 12 boats.
        It is a clear day in Oslo.
        My boat is fast.
        Anna's request is for 12 boats.
        The questions were hard and 12 pupils answered.
        This is what Oslo sold: 12 boats.
        The correct sum is 12.
        Anna needs to order 3 more.
        The reader may ask where the boats are.
        Oslo met its limit of 12 boats.
        The description of Lima is missing in row 3.
        This shows that Oslo leads.
        The report was written by Tom in May.
    """,
}


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]


@pytest.mark.parametrize(("check", "table"), [(opening_praise, PRAISE), (explicit_justification, JUSTIFIED)])
def test_precision_and_recall_of_the_executable_ones(check, table) -> None:
    hits, others = lines(table[True]), lines(table[False])
    assert len(hits) + len(others) >= 80
    missed = [line for line in hits if not check(line)]
    wrong = [line for line in others if check(line)]
    found = len(hits) - len(missed)
    precision, recall = found / (found + len(wrong)), found / len(hits)
    print(f"{check.__name__}: precision {precision:.3f}, recall {recall:.3f}; missed {missed}; wrong {wrong}")
    assert precision >= 0.97 and recall >= 0.95, (missed, wrong)


def test_the_offending_sentence_is_named() -> None:
    assert opening_praise("Hello! What a lovely question. Oslo leads.") == "What a lovely question."
    text = "Oslo leads with 12. This report is clear and concise. Lima has 3."
    assert explicit_justification(text) == "This report is clear and concise."
    assert vetoes(text) == ["Explicit Justification"]
    assert vetoes("Great question! " + text) == ["Initial Praise", "Explicit Justification"]
    assert vetoes("Oslo leads with 12 boats, Lima has 3.") == []


def test_the_rubrics_as_data() -> None:
    assert [len(CORE), len(PRESCRIPTIVE)] == [3, 2]
    assert len({rubric.name for rubric in RUBRICS}) == 5
    for rubric in RUBRICS:
        assert len(rubric.short.split()) < 15
        assert 2 <= rubric.text.count(".") <= 4
        assert rubric.mandatory == (rubric.kind == "prescriptive")
    own = task_rubric("Names the town with the most boats.")
    assert own.kind == "task" and own.mandatory and own.violates("anything") == ""


@given(st.text(st.characters(codec=None)))
def test_any_text_is_checked(text: str) -> None:
    for rubric in PRESCRIPTIVE:
        assert isinstance(rubric.violates(text), str)


@pytest.mark.parametrize("piece", ["this report ", "very good ", "a, ", "I have ", "\ud800", "so that ", "Oh. ", "- "])
def test_long_texts_have_an_end(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    with it_ends():
        vetoes(text)

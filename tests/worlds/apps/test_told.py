"""What an answer tells, in whatever form."""

from __future__ import annotations

import pytest

from openk2.worlds.apps.told import Numbers, names, refuses


@pytest.mark.parametrize(
    ("text", "value", "named"),
    [
        ("It costs 1,234.50 in all.", "1234.5", True),
        ("It costs $12.", "12", True),
        ("There are 7, not 8.", "8", False),
        ("There are not 7 but 8.", "8", True),
        ("The reorder point is five.", "5", True),
        ("There is one past partnership.", "1", True),
        ("You have no orders.", "0", True),
        ("None.", "0", True),
        ("There are twenty-five.", "20", False),
        ("It is -3 now.", "-3", True),
        ("It is 12kg.", "12", True),
        ("It is 13.", "12", False),
        ("It is 120.", "12", False),
        ("It is 1.2.", "12", False),
        # Parts of dates and ids are no numbers.
        ("On 2026-05-03.", "5", False),
        ("On 2026-05-03.", "2026", False),
        ("Order ORD-1002.", "1002", False),
        ("Order ORD-1002.", "ord-1002", True),
        ("Order ORD-10021.", "ORD-1002", False),
        ("The status is in_repair.", "in repair", True),
        ("The status is In Repair.", "in_repair", True),
        ("It was reopened.", "open", False),
        ("Due on 2026-05-03.", "2026-05-03", True),
        ("It was acquired on May 3, 2026.", "2026-05-03", True),
        ("On the 3rd of May.", "2026-05-03", True),
        ("On 3/5/2026.", "2026-05-03", True),
        ("On May 13, 2026.", "2026-05-03", False),
        ("It ends at 2:30 PM.", "14:30", True),
        ("It ends at 2 p.m.", "14:00", True),
        ("It ends at 2:30 AM.", "14:30", False),
        ("It begins at 9:05.", "09:05", True),
        ("At 12:15 am.", "00:15", True),
        ("The status is not cancelled.", "cancelled", False),
        ("The status isn't cancelled.", "cancelled", False),
        ("It is cancelled, not open.", "cancelled", True),
        ("It is no longer open, it is cancelled.", "cancelled", True),
        ("Free: yes.", "yes", True),
        ("The room is free then.", "yes", True),
        ("The room isn't free then.", "yes", False),
        ("The room is not free then.", "no", True),
        ("Done.", "yes", False),
        ("The edge is infinity.", "infinity", True),
        ("It is 12 and nan.", "nan", True),
        ("It is 100000.", "1e5", True),
        ("The status isn’t open.", "open", False),
        ("The stock isn’t 12.", "12", False),
        ("It isn’t enabled at the moment", "yes", False),
        ("It isn’t enabled at the moment", "no", True),
        ("The status is not **open**.", "open", False),
        ("It is **not** open.", "open", False),
        ('It is not "open".', "open", False),
        ("It is not yet fully open.", "open", False),
        ("Neither Assam nor Sencha is in stock.", "Sencha", False),
        ("They are all in stock except Assam.", "Assam", False),
        ("Not only Assam but also Sencha is in stock.", "Assam", True),
        ("It is _Assam_.", "Assam", True),
        ("There are _12_ pieces, and __Assam__.", "12", True),
        ("The balance is \u22125.", "-5", True),
        ("The balance is minus 5.", "-5", True),
        ("The balance is -$5.", "-5", True),
        ("There are 1\u202f200 of them.", "1200", True),
        ("It is due on 2026/02/27.", "2026-02-27", True),
        ("It begins at noon.", "12:00", True),
        ("That is O’Brien.", "O'Brien", True),
        ("It is false.", "no", True),
        ("I could not cancel the order. The seal is intact: yes.", "no", False),
    ],
)
def test_names(text: str, value: str, named: bool) -> None:
    assert names(text, value) is named


@pytest.mark.parametrize(
    ("texts", "no"),
    [
        (["I'm sorry, I cannot do that: it is closed."], True),
        (["That is not possible. Is there anything else?", "All right."], True),
        (["I have no tool for that."], True),
        (["Sorry for the wait. That is done now, as you asked."], False),
        (["No problem, I had nothing against it: that is done now."], False),
        (["It is against our policy."], True),
        (["I’m sorry, but I can’t do that."], True),
        (["It isn’t allowed."], True),
        (["I don’t have a tool for that."], True),
        (["I wasn’t able to do it."], True),
        (["Sorry, the policy prohibits this."], True),
        (["By the rules the request is denied."], True),
        (["That isn't something I can do."], True),
    ],
)
def test_refusals(texts: list[str], no: bool) -> None:
    assert refuses(texts) is no


def test_numbers_that_nothing_says() -> None:
    known = Numbers()
    known.add("Book 3 seats from 14:30 on 2026-05-03 for ORD-1002.")
    known.add_result('{"price": 147.28, "share": 0.25, "rows": [{"n": 8}, {"n": 9}]}')
    for text in (
        "3 seats for 147.28, about 147, which is 25 %.", "There are 2: 8 and 9.", "On May 3, 2026 at 2 PM.",
        "1. One\n2. Two\n7. Seven", "Order ORD-7777 on 2027-01-01 at 10:45.",
    ):  # fmt: skip
        assert known.others(text) == [], text
    assert known.others("It costs 148.28, or 1,500 for 11.") == ["148.28", "1,500", "11"]

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
        # Half of the day counts, however the hour is written.
        ("It opens at 01:30 PM.", "13:30", True),
        ("It opens at 01:30 PM.", "01:30", False),
        ("It opens at 1:30:00 PM.", "13:30", True),
        ("It opens at 1:30:00 PM.", "01:30", False),
        ("It opens at 9:00 PM.", "09:00", False),
        ("It opens at 09:00 PM.", "09:00", False),
        ("It opens at 09:00 p.m.", "21:00", True),
        ("It opens at 9:00 am.", "09:00", True),
        ("At 01:45 PM.", "01:45", False),
        ("At 1.45 pm.", "01:45", False),
        ("At 1.45 pm.", "13:45", True),
        ("At 12:30 AM.", "12:30", False),
        ("At 12:30 AM.", "00:30", True),
        ("At 12:30 PM.", "12:30", True),
        ("At 12:30.", "12:30", True),
        ("At 13:30 PM.", "13:30", True),
        ("At 11:30 PM.", "13:30", False),
        ("At midnight.", "00:00", True),
        # A year that is said is the right one.
        ("It is due on February 3, 2026.", "2027-02-03", False),
        ("It is due on the 3rd of February 2026.", "2027-02-03", False),
        ("It is due on 3 Feb in 2026.", "2027-02-03", False),
        ("It is due on February 3rd, 2027.", "2027-02-03", True),
        ("It is due on February 3, and 12 are open.", "2027-02-03", True),
        ("It is due on 3.2.2027.", "2027-02-03", True),
        ("It is due on 3.2.2027.", "3.2", False),
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
        (["I'm sorry, that isn't possible."], True),
        (["The request has been rejected."], True),
        (["The rules don't allow it."], True),
        (["That's not something our policy allows."], True),
        (["There isn't a way to do that."], True),
        (["You don't have enough credit"], True),
        (["Insufficient credit"], True),
        (["The purchase didn't go through"], True),
        (["Unfortunately this didn't go through. Farid Ivanov has 128.59."], True),
        (["I have no means to do that."], True),
        (["I won't be able to cancel it."], True),
        (["It may not be cancelled."], True),
        (["The policy says so, and I will not."], True),
        (["The answer is no."], True),
        (["All right, I have checked it. I'm afraid I can't, it is over."], True),
        (["I have cancelled nothing: our policy does not allow it."], True),
        (["It cannot be done as you asked."], True),
        (["I've already changed it to laser, so it can't be changed to that."], True),
        (["I can't say that it is done, the system rejected it."], True),
        # What has words of a no and is none.
        (["Done, I have taken care of it. You won't have to do anything else."], False),
        (["Done! It won't take long."], False),
        (["All set; you may not see it at once."], False),
        (["I couldn't find a reason not to; done."], False),
        (["I've cancelled it, no, nothing else is needed."], False),
        (["It is cancelled now. You won't be charged."], False),
        (["It is booked. If you cannot come, tell us."], False),
        (["It is booked. This can't be undone."], False),
        (["By no means a problem: it is open now."], False),
        (["This isn't against our policy: it is open now."], False),
        (["It is open now, nothing was rejected."], False),
        (["I cannot break our rules."], True),
        (["Doing so would violate our policy."], True),
        # A no beside the claim of the contrary.
        (["I have booked it, although it is against our policy."], False),
        (["The claim has been rejected, as you asked."], False),
        (["Sure, done. It cannot be opened any more."], False),
        (["Done! Shall I send a receipt?", "I cannot send one."], False),
        (["We have successfully closed it; it can't be opened."], False),
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


def test_dates_and_times_with_dots_are_no_numbers_that_nothing_says() -> None:
    known = Numbers()
    known.add_result('{"day": "2026-08-21", "start": "13:45", "end": "09:05"}')
    for text in ("On 21.8.2026.", "On 21.08.2026 at 1.45 pm.", "At 13.45, or 01.45 PM.", "Until 9.05 am.", "At 09.05."):
        assert known.others(text) == [], text
    assert known.others("On 22.8.2026 at 2.45 pm.") == ["22", "2.45"]
    assert known.others("It costs 14.45.") == ["14.45"]

"""The stock of word problems: templates with a structure of arithmetic each, filled with words of a split.

A template is a function that draws numbers and words, works the problem out with `Draw`, which writes down every step,
and returns the text. So text and answer can not disagree about a number, and the level of a problem is the number of
its steps. Numbers are drawn so that every step is a whole number or has at most two decimals.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from openk2.core import Split
from openk2.worlds.families import lexicon

Number = Fraction | int


def show(number: Number) -> str:
    """A number as people write it: whole, else with two decimals, else as a fraction."""
    number = Fraction(number)
    if number.denominator == 1:
        return str(number.numerator)
    cents = number * 100
    return f"{float(number):.2f}" if cents.denominator == 1 else f"{number.numerator}/{number.denominator}"


class Draw:
    """What a template draws from, and the steps of its solution."""

    def __init__(self, rng: random.Random, split: Split) -> None:
        self.rng, self.split = rng, split
        self.steps: list[str] = []
        self.answer = Fraction(0)
        self._used: set[str] = set()

    def whole(self, low: int, high: int, step: int = 1) -> int:
        """A whole number of [low, high]."""
        return self.rng.randrange(low, high + 1, step)

    def one(self, *choices: int) -> int:
        return self.rng.choice(choices)

    def name(self) -> str:
        """A person, another one each time."""
        return self._new(lambda: lexicon.first_name(self.rng, self.split))

    def thing(self) -> str:
        """A thing that can be counted, singular, another one each time."""
        topic = self.rng.choice(("tool", "home", "game", "animal", "clothing"))
        return self._new(lambda: self.rng.choice(lexicon.nouns(self.split, topic)))

    def things(self) -> str:
        """The same in the plural."""
        return lexicon.plural(self.thing())

    def place(self) -> str:
        return self._new(lambda: self.rng.choice(lexicon.of_split(lexicon.PLACES, self.split)))

    def _new(self, draw: Callable[[], str]) -> str:
        while (word := draw()) in self._used:
            pass
        self._used.add(word)
        return word

    def add(self, a: Number, b: Number) -> Fraction:
        return self._step(a, "+", b, Fraction(a) + b)

    def sub(self, a: Number, b: Number) -> Fraction:
        return self._step(a, "-", b, Fraction(a) - b)

    def mul(self, a: Number, b: Number) -> Fraction:
        return self._step(a, "*", b, Fraction(a) * b)

    def div(self, a: Number, b: Number) -> Fraction:
        return self._step(a, "/", b, Fraction(a) / b)

    def part(self, top: int, low: int, a: Number) -> Fraction:
        """`top/low` of a number."""
        return self._write(f"{top}/{low} of {show(a)}", Fraction(top, low) * a)

    def percent(self, percent: int, a: Number) -> Fraction:
        return self._write(f"{percent}% of {show(a)}", Fraction(percent, 100) * a)

    def _step(self, a: Number, sign: str, b: Number, result: Fraction) -> Fraction:
        return self._write(f"{show(a)} {sign} {show(b)}", result)

    def _write(self, left: str, result: Fraction) -> Fraction:
        self.steps.append(f"{left} = {show(result)}")
        self.answer = result
        return result


Make = Callable[[Draw], str]


@dataclass(frozen=True, slots=True)
class Template:
    """One kind of problem. `held_out` ones are of the test split alone; `level` is the number of steps."""

    name: str
    level: int
    held_out: bool
    make: Make


TEMPLATES: dict[str, Template] = {}


def template(level: int, *, held_out: bool = False) -> Callable[[Make], Make]:
    def register(make: Make) -> Make:
        TEMPLATES[make.__name__] = Template(make.__name__, level, held_out, make)
        return make

    return register


@template(1)
def gather(d: Draw) -> str:
    a, b, who, what = d.whole(2, 60), d.whole(2, 60), d.name(), d.things()
    d.add(a, b)
    return f"{who} has {a} {what} and gets {b} more. How many {what} does {who} have now?"


@template(1)
def give_away(d: Draw) -> str:
    b, who, friend, what = d.whole(2, 40), d.name(), d.name(), d.things()
    a = b + d.whole(2, 40)
    d.sub(a, b)
    return f"{who} had {a} {what} and gave {b} of them to {friend}. How many {what} are left?"


@template(1)
def boxes(d: Draw) -> str:
    a, b, what = d.whole(3, 15), d.whole(3, 12), d.things()
    d.mul(a, b)
    return f"There are {a} boxes with {b} {what} in each. How many {what} are there?"


@template(1)
def share(d: Draw) -> str:
    b, who, what = d.whole(3, 12), d.name(), d.things()
    a = b * d.whole(3, 15)
    d.div(a, b)
    return f"{who} shares {a} {what} equally among {b} friends. How many {what} does each friend get?"


@template(1)
def part_of(d: Draw) -> str:
    low, who, what = d.whole(2, 9), d.name(), d.things()
    top = d.whole(1, low - 1)
    a = low * d.whole(2, 12)
    d.part(top, low, a)
    return f"{who} has {a} {what}. {top}/{low} of them are red. How many red {what} does {who} have?"


@template(1, held_out=True)
def percent_of(d: Draw) -> str:
    a, percent, what = d.whole(20, 200, 20), d.one(5, 10, 20, 25, 50, 75), d.things()
    d.percent(percent, a)
    return f"{percent}% of {a} {what} are green. How many {what} are that?"


@template(2)
def change(d: Draw) -> str:
    n, price, who, what = d.whole(2, 9), d.whole(2, 9), d.name(), d.things()
    note = next(x for x in (20, 50, 100) if x > n * price)
    d.sub(note, d.mul(n, price))
    return f"{who} buys {n} {what} for ${price} each and pays with ${note}. How many dollars does {who} get back?"


@template(2)
def one_free(d: Draw) -> str:
    n, cents, who, what = d.whole(3, 9), d.one(25, 50, 75), d.name(), d.things()
    price = d.whole(1, 9) + Fraction(cents, 100)
    d.mul(d.sub(n, 1), price)
    return f"{who} takes {n} {what} for ${show(price)} each. One is free. How many dollars does {who} pay in total?"


@template(2)
def train_speed(d: Draw) -> str:
    hours, rest, a, b = d.whole(2, 6), d.whole(10, 90, 5), d.place(), d.place()
    far = d.whole(40, 120, 10) * hours + rest
    d.div(d.sub(far, rest), hours)
    return (
        f"It is {far} km from {a} to {b}. After {hours} hours at the same speed a train still has {rest} km to go. "
        f"How many km per hour is that?"
    )


@template(2)
def older(d: Draw) -> str:
    a, gap, years, who, other = d.whole(5, 30), d.whole(2, 12), d.whole(2, 15), d.name(), d.name()
    d.add(d.add(a, gap), years)
    return f"{who} is {a} years old. {other} is {gap} years older. How old will {other} be in {years} years?"


@template(2)
def recipe(d: Draw) -> str:
    people, each, who = d.whole(2, 6), d.whole(20, 90, 5), d.name()
    guests = people + d.whole(1, 8)
    d.mul(d.div(people * each, people), guests)
    return (
        f"{who}'s recipe for {people} people needs {people * each} grams of flour. "
        f"How many grams are needed for {guests} people?"
    )


@template(2)
def discount(d: Draw) -> str:
    price, percent, what = d.whole(20, 200, 20), d.one(5, 10, 15, 20, 25, 30, 50), d.thing()
    d.sub(price, d.percent(percent, price))
    return f"The price of the {what} is ${price}. It is sold with a discount of {percent}%. What does it cost now?"


@template(2)
def twice_as_many(d: Draw) -> str:
    a, times, who, other, what = d.whole(3, 25), d.whole(2, 5), d.name(), d.name(), d.things()
    d.add(a, d.mul(a, times))
    return f"{who} has {a} {what}. {other} has {times} times as many. How many {what} do they have together?"


@template(2)
def difference_of_parts(d: Draw) -> str:
    new, what = d.whole(5, 40), d.things()
    total = 2 * new + d.whole(1, 40)
    d.sub(d.sub(total, new), new)
    return f"Of {total} {what} {new} are new and the others are old. How many more old {what} than new ones are there?"


@template(2, held_out=True)
def perimeter(d: Draw) -> str:
    a, b, who = d.whole(3, 40), d.whole(3, 40), d.name()
    d.mul(d.add(a, b), 2)
    return f"{who}'s garden is {a} m long and {b} m wide. How many metres of fence go once around it?"


@template(3)
def two_goods(d: Draw) -> str:
    n, m, p, q = d.whole(2, 9), d.whole(2, 9), d.whole(2, 12), d.whole(2, 12)
    who, what, other = d.name(), d.things(), d.things()
    d.add(d.mul(n, p), d.mul(m, q))
    return (
        f"{who} buys {n} {what} for ${p} each and {m} {other} for ${q} each. How many dollars does {who} pay in total?"
    )


@template(3)
def pocket_money(d: Draw) -> str:
    weekly, spend, weeks, has, who = d.whole(6, 20), d.whole(1, 5), d.whole(3, 12), d.whole(5, 50), d.name()
    d.add(d.mul(d.sub(weekly, spend), weeks), has)
    return (
        f"{who} has ${has}, gets ${weekly} a week and spends ${spend} of it every week. "
        f"How many dollars does {who} have after {weeks} weeks?"
    )


@template(3)
def meet(d: Draw) -> str:
    u, v, hours, who, other = d.whole(4, 30), d.whole(4, 30), d.whole(2, 5), d.name(), d.name()
    far = (u + v) * hours + d.whole(5, 60)
    d.sub(far, d.mul(d.add(u, v), hours))
    return (
        f"{who} and {other} are {far} km apart and ride towards each other, {who} with {u} km per hour and {other} "
        f"with {v} km per hour. How many km are between them after {hours} hours?"
    )


@template(3)
def average(d: Draw) -> str:
    who, what = d.name(), d.things()
    a, b = d.whole(2, 40), d.whole(2, 40)
    c = d.whole(2, 40)
    c += -(a + b + c) % 3
    d.div(d.add(d.add(a, b), c), 3)
    return (
        f"{who} made {a} {what} on Monday, {b} on Tuesday and {c} on Wednesday. "
        f"How many {what} is that per day on average?"
    )


@template(3)
def pack_rest(d: Draw) -> str:
    size, packs, rows, who, what = d.whole(4, 9), d.whole(3, 9), d.whole(2, 6), d.name(), d.things()
    total = size * packs
    broken = total % rows + rows * d.whole(1, total // rows - 1)
    d.div(d.sub(d.mul(size, packs), broken), rows)
    return (
        f"{who} opens {packs} packs of {size} {what}. {broken} are broken; the others are laid in {rows} equal rows. "
        f"How many {what} are in a row?"
    )


@template(3)
def age_then(d: Draw) -> str:
    child, times, who, other = d.whole(4, 12), d.whole(2, 5), d.name(), d.name()
    then = child + d.whole(2, 15)
    d.add(d.mul(child, times), d.sub(then, child))
    return (
        f"{who} is {child} years old and {other} is {times} times as old. How old will {other} be when {who} is {then}?"
    )


@template(3)
def fraction_spent(d: Draw) -> str:
    low, who, what = d.whole(2, 6), d.name(), d.thing()
    has = low * d.whole(6, 20)
    price = d.whole(1, has - has // low - 1)
    d.sub(d.sub(has, d.div(has, low)), price)
    return (
        f"{who} has ${has}, spends 1/{low} of it on food, and then buys a {what} for ${price}. "
        f"How many dollars are left?"
    )


@template(3)
def work_rate(d: Draw) -> str:
    u, v, done, who, other, what = d.whole(3, 15), d.whole(3, 15), d.whole(5, 40), d.name(), d.name(), d.things()
    total = (u + v) * d.whole(2, 8) + done
    d.div(d.sub(total, done), d.add(u, v))
    return (
        f"{who} paints {u} {what} per hour and {other} paints {v}. Of {total} {what} {done} are painted already. "
        f"How many hours do they need for the rest, together?"
    )


@template(3, held_out=True)
def tank(d: Draw) -> str:
    flow, leak, minutes, who = d.whole(8, 30), d.whole(1, 7), d.whole(3, 20), d.name()
    full = (flow - leak) * minutes + d.whole(5, 60)
    d.sub(full, d.mul(d.sub(flow, leak), minutes))
    return (
        f"{who} fills a tank of {full} litres. {flow} litres flow in per minute and {leak} leak out. "
        f"How many litres are missing after {minutes} minutes?"
    )


@template(4)
def profit(d: Draw) -> str:
    n, cost, keep, who, what = d.whole(6, 20), d.whole(2, 9), d.whole(1, 2), d.name(), d.things()
    price = 2 * cost + d.whole(0, 5)
    d.sub(d.mul(d.sub(n, keep), price), d.mul(n, cost))
    return (
        f"{who} buys {n} {what} for ${cost} each, keeps {keep} and sells the others for ${price} each. "
        f"How many dollars does {who} gain?"
    )


@template(4)
def overtime(d: Draw) -> str:
    rate, more, hours, over, days, who = (
        d.whole(10, 25),
        d.whole(2, 9),
        d.whole(4, 8),
        d.whole(1, 3),
        d.whole(2, 6),
        d.name(),
    )
    d.add(d.mul(d.mul(hours, days), rate), d.mul(over, rate + more))
    return (
        f"{who} works {hours} hours a day for {days} days at ${rate} per hour, and then {over} more hours at "
        f"${rate + more} per hour. How many dollars does {who} earn?"
    )


@template(4)
def percent_then_parts(d: Draw) -> str:
    total, percent, what = d.whole(40, 400, 20), d.one(10, 20, 25, 40, 50), d.things()
    low = d.whole(2, 4)
    total *= low
    sold = d.percent(percent, total)
    rest = d.sub(total, sold)
    d.sub(rest, d.part(1, low, rest))
    return (
        f"A shop has {total} {what}. It sells {percent}% of them on Monday and 1/{low} of the rest on Tuesday. "
        f"How many {what} are left?"
    )


@template(4)
def bulk_recipe(d: Draw) -> str:
    per, batches, has, bag, who = d.whole(2, 8) * 50, d.whole(3, 9), d.whole(1, 5) * 50, d.whole(2, 9), d.name()
    need = d.mul(per, batches)
    d.mul(d.div(d.sub(need, has), 50), bag)
    return (
        f"{who} bakes {batches} cakes with {per} grams of sugar each and has {has} grams. Sugar is sold in packs of "
        f"50 grams for ${bag}. How many dollars does {who} pay for what is missing?"
    )


@template(4, held_out=True)
def tickets(d: Draw) -> str:
    grown, kids, price, less, place = d.whole(2, 9), d.whole(2, 9), d.whole(8, 20), d.whole(2, 6), d.place()
    d.add(d.mul(grown, price), d.mul(kids, d.sub(price, less)))
    return (
        f"A ticket to the zoo of {place} costs ${price} for adults and ${less} less for children. "
        f"What do {grown} adults and {kids} children pay in total, in dollars?"
    )


@template(5)
def shop_day(d: Draw) -> str:
    n, m, p, q = d.whole(5, 20), d.whole(5, 20), d.whole(3, 12), d.whole(3, 12)
    percent, who, what, other = d.one(10, 20, 25, 50), d.name(), d.things(), d.things()
    total = d.add(d.mul(n, p), d.mul(m, q))
    d.sub(total, d.percent(percent, total))
    return (
        f"{who} sells {n} {what} for ${p} each and {m} {other} for ${q} each. {percent}% of the money goes for rent. "
        f"How many dollars does {who} keep?"
    )


@template(5)
def savings(d: Draw) -> str:
    rate, hours, costs, has, who, what = (
        d.whole(8, 20),
        d.whole(3, 8),
        d.whole(5, 20),
        d.whole(10, 60),
        d.name(),
        d.thing(),
    )
    weeks = d.whole(2, 9)
    gain = d.sub(d.mul(rate, hours), costs)
    price = int(gain) * weeks + has + d.whole(10, 90)
    d.sub(price, d.add(d.mul(gain, weeks), has))
    return (
        f"{who} wants a {what} for ${price} and has ${has}. Every week {who} works {hours} hours at ${rate} per hour "
        f"and spends ${costs}. How many dollars are missing after {weeks} weeks?"
    )


@template(5)
def three_shares(d: Draw) -> str:
    a, more, times, price = d.whole(3, 20), d.whole(2, 15), d.whole(2, 4), d.whole(2, 9)
    who, second, third, what = d.name(), d.name(), d.name(), d.things()
    b = d.add(a, more)
    d.mul(d.add(d.add(a, b), d.mul(b, times)), price)
    return (
        f"{who} buys {a} {what}, {second} buys {more} more than {who}, and {third} buys {times} times as many as "
        f"{second}. Each costs ${price}. How many dollars do they pay in all?"
    )


@template(5, held_out=True)
def farm(d: Draw) -> str:
    n, each, days, broken, dozen, who = (
        d.whole(4, 15),
        d.whole(2, 4),
        d.whole(3, 9),
        d.whole(1, 9),
        d.whole(2, 5),
        d.name(),
    )
    pack = d.one(2, 4)
    broken += (n * each * days - broken) % pack
    eggs = d.sub(d.mul(d.mul(n, each), days), broken)
    d.mul(d.div(eggs, pack), dozen)
    return (
        f"{who} has {n} hens that lay {each} eggs a day each. After {days} days {broken} of the eggs are broken. The "
        f"others are sold at ${dozen} for {pack} eggs. How many dollars does {who} get?"
    )


def asides(d: Draw) -> list[str]:
    """Facts with a number that have nothing to do with any question."""
    who, place, what = d.name(), d.place(), d.things()
    return [
        f"{who}, who lives next door, is {d.whole(20, 80)} years old.",
        f"It is {d.whole(12, 29)} degrees warm today.",
        f"Bus {d.whole(3, 90)} goes to {place} from here.",
        f"{who} has seen {d.whole(3, 40)} {what} today.",
        f"The house has number {d.whole(2, 150)}.",
    ]

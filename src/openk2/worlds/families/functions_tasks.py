"""Tasks of the functions family, one builder per skill: a request, the declared tools, and the calls that solve it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from openk2.core import Split, ToolSpec, compact_json
from openk2.worlds.families import functions_chain_phrases as say_chain
from openk2.worlds.families import functions_phrases as say
from openk2.worlds.families import functions_tool_words as tool_words
from openk2.worlds.families import lexicon
from openk2.worlds.families.functions_actions import (
    OMITTING,
    Given,
    an,
    describe,
    make,
    purpose,
    spoken,
    tool_name,
)
from openk2.worlds.families.functions_tools import (
    CONFIRM_WORDS,
    Action,
    Argument,
    Json,
    Maker,
    clause,
    must_say,
    schema_of,
)
from openk2.worlds.families.lexicon import Rng
from openk2.worlds.families.phrasing import Phrase, listing, request

NO_TOOL = "I have no tool for that."
MAX_TOOLS = 8

# Kinds that can stand beside the right tool about the same noun without being right too.
HARD = {
    "get": ("get", "delete", "create", "update", "rate", "rent"),
    "whether": ("get", "delete", "create", "update", "rate"),
    "plain": ("delete", "create", "update", "rate"),
    "create": ("get", "delete", "update", "rate"),
    "update": ("get", "delete", "create", "rate"),
    "delete": ("get", "create", "update", "rate", "rent"),
    "search": ("create", "delete", "update", "rate"),
    "count": ("create", "delete", "update", "rate"),
    "rent": ("get", "delete", "update", "rate"),
    "rate": ("get", "delete", "create", "rent"),
    "run": ("get", "delete", "update", "rate"),
    "stop": ("get", "create", "update", "rate"),
    "move": ("get", "delete", "create", "rate"),
}


@dataclass(slots=True)
class Call:
    """A call that the solution makes, and what the world answers."""

    name: str
    arguments: Json
    result: Json
    intent: str
    error: bool = False

    def to_json(self) -> Json:
        return {
            "name": self.name,
            "arguments": self.arguments,
            "result": compact_json(self.result),
            "error": self.error,
        }


@dataclass(slots=True)
class Plan:
    """A whole task before it is frozen: `groups` are the calls in order, those of one group in any order.

    `refused` is what no tool was found for, in a task without calls.
    """

    request: str
    tools: list[ToolSpec]
    groups: list[list[Call]]
    answer: str
    must_say: list[Any]
    right: list[str]
    ask: Json | None = None
    refused: str = ""
    extra: Json = field(default_factory=dict)


def answer_of(actions: Sequence[Action]) -> str:
    """The canonical answer: what the calls returned, in their order."""
    keys = [action.key for action in actions]
    clauses = [clause(action, subject=keys.count(action.key) > 1) for action in actions]
    text = clauses[0] if len(clauses) == 1 else f"{', '.join(clauses[:-1])} and {clauses[-1]}"
    if len(actions) == 1 and isinstance(actions[0].result[actions[0].key], bool):
        return f"{'Yes' if actions[0].result[actions[0].key] else 'No'}, {text}."
    text = text[0].upper() + text[1:] + "."
    return f"Done. {text}" if any(action.changes for action in actions) else text


def call_of(action: Action) -> Call:
    return Call(action.name, action.call, action.result, action.intent)


def distractors(maker: Maker, right: Sequence[Action], count: int, hard: float = 0.4) -> list[ToolSpec]:
    """Tools beside the right ones: about other things, or the same thing but something else to do with it."""
    nouns = [action.noun for action in right]
    keys = [action.key for action in right]
    tools: list[ToolSpec] = []
    done = {(action.noun, action.kind) for action in right}
    for _ in range(count):
        action = maker.rng.choice(right)
        kinds = [kind for kind in HARD.get(action.kind, ()) if kind == "get" or (action.noun, kind) not in done]
        if kinds and maker.rng.random() < hard:
            kind = maker.rng.choice(kinds)
            done.add((action.noun, kind))
            other = make(maker, kind, action.noun, avoid=keys)
            keys.append(other.key)
        else:
            other = make(maker, noun=maker.fresh_noun(*nouns))
            if other.kind in ("send", "convert", "local") and any(a.kind == other.kind for a in right):
                other = make(maker, "get", noun=maker.fresh_noun(*nouns))
        nouns.append(other.noun)
        tools.append(other.spec)
    return tools


def some(rng: Rng, most: int = 7) -> int:
    """How many distractors a task gets when the skill does not say."""
    return min(most, rng.choices((0, 1, 2, 3, 4, 5, 6), (18, 16, 16, 18, 14, 10, 8))[0])


def shuffled(rng: Rng, tools: list[ToolSpec]) -> list[ToolSpec]:
    rng.shuffle(tools)
    return tools


def single(maker: Maker) -> Plan:
    return simple(maker, 0)


def choose(maker: Maker) -> Plan:
    maker.literal = maker.rng.random() < 0.8
    return simple(maker, maker.rng.randint(3, 7), hard=0.45)


def pick(maker: Maker) -> Plan:
    """Training only: which tool is meant, and little else: two to four small tools, short words, hardly any noise."""
    rng = maker.rng
    maker.literal, maker.clipped, maker.opaque = True, 0.6, rng.random() < 0.6
    action = small(maker)
    others = sorted(distractors(maker, [action], 8, hard=0.25), key=lambda tool: len(tool.parameters["properties"]))
    tools = shuffled(rng, [action.spec, *others[: rng.randint(1, 3)]])
    text = request(rng, maker.split, action.phrase, noise=0.3, aside=False)
    return Plan(text, tools, [[call_of(action)]], answer_of([action]), must_say(action), [action.name])


def small(maker: Maker) -> Action:
    """An action with one argument."""
    for _ in range(200):
        action = make(maker, maker.rng.choice(("get", "get", "delete", "delete", "stop", "run")))
        if len(action.arguments) == 1:
            return action
    raise AssertionError("200 tools in a row had several parameters")  # most of these kinds have one


def types(maker: Maker) -> Plan:
    rng = maker.rng
    kind = rng.choice(("create", "create", "search", "rent", "delete", "count"))
    return simple(maker, some(rng, 4), kind, typed=rng.randint(1, 2))


def simple(maker: Maker, others: int, kind: str = "", *, typed: int = 0, hard: float = 0.3) -> Plan:
    """One call solves it."""
    action = make(maker, kind, typed=typed)
    tools = shuffled(maker.rng, [action.spec, *distractors(maker, [action], others, hard)])
    text = request(maker.rng, maker.split, action.phrase)
    return Plan(text, tools, [[call_of(action)]], answer_of([action]), must_say(action), [action.name])


def parallel(maker: Maker) -> Plan:
    """Several calls that do not depend on each other."""
    rng = maker.rng
    if rng.random() < 0.6:
        actions, phrase = same_tool(maker)
    else:
        maker.sentence = "do"
        first = make(maker, rng.choice(("get", "local", "create", "update", "delete", "send", "rate")))
        second = make(maker, rng.choice(("get", "create", "update", "delete", "rate")), maker.fresh_noun(first.noun))
        maker.sentence = None
        if first.key == second.key and not (first.subject and second.subject):
            second.result, second.key = {"code": lexicon.code(rng, maker.split)}, "code"
        actions = [first, second]
        phrase = say_chain.BOTH.say(rng, maker.split, x=first.phrase, y=second.phrase)
    right = list({action.name: action for action in actions}.values())
    tools = shuffled(rng, [*(action.spec for action in right), *distractors(maker, right, some(rng, 5))])
    values = [value for action in actions for value in must_say(action)]
    calls = [call_of(action) for action in actions]
    text = request(rng, maker.split, phrase)
    return Plan(text, tools, [calls], answer_of(actions), values, [action.name for action in right])


def same_tool(maker: Maker) -> tuple[list[Action], Phrase]:
    """One tool, two or three things."""
    rng, split = maker.rng, maker.split
    kind = rng.choice(("get", "get", "get", "delete", "stop"))
    noun = maker.noun()
    first, _ = maker.entity(noun)
    count = rng.choices((2, 3, 4), (60, 32, 8))[0]
    values = [first.value]
    for _ in range(20):
        other, _ = maker.entity(noun, "id" if isinstance(first.value, int) or "-" in first.value else "name")
        if type(other.value) is type(first.value) and other.value not in values and len(values) < count:
            values.append(other.value)
    if len(values) < 2:
        return same_tool(maker)
    entity = say.ENTITY_MANY.say(
        rng, split, ns=lexicon.plural(noun), n=noun, v=listing(rng, [str(value) for value in values])
    )
    base = make(maker, kind, noun, given=(first, entity))
    if len(base.arguments) > 1:
        base.arguments = base.arguments[:1]
    if kind == "get":
        base.phrase = say.ATTRIBUTE.say(rng, split, a=base.key, e=entity, verb=spoken(maker.verb("get")))
    actions = []
    for value in values:
        argument = Argument(first.name, first.schema, value, Phrase(""), shown=str(value))
        result = {base.key: another(maker, base.result[base.key])}
        actions.append(replace(base, arguments=[argument], result=result))
    return actions, base.phrase


def another(maker: Maker, value: Any) -> Any:
    """A value of the same kind."""
    if isinstance(value, int | float):
        return maker.number()
    if re.fullmatch(r"\d{4}-\d\d-\d\d", value):
        return lexicon.date(maker.rng)
    if re.fullmatch(r"[A-Z]{2}-\d+", value):
        return lexicon.code(maker.rng, maker.split)
    return maker.proper_name() if value[:1].isupper() else maker.short_text()


def chain(maker: Maker, calls: int) -> Plan:
    """Every call but the first needs what the one before returned."""
    rng, split = maker.rng, maker.split
    by_name = rng.random() < 0.55
    count = calls - 1 if by_name else calls
    nouns: list[str] = []
    for _ in range(count):
        nouns.append(maker.fresh_noun(*nouns))
    steps: list[Action] = []
    value: str | int
    if by_name:
        value = maker.proper_name()
        steps.append(find(maker, nouns[0], value))
    else:
        value = maker.identifier()
    start = say.ENTITY["name" if by_name else "id"].say(rng, split, n=nouns[0], v=value)
    key = f"{nouns[0].replace(' ', '_')}_id"
    current = steps[0].result[steps[0].key] if by_name else value
    entity = start
    for noun, following in pairwise(nouns):
        step = link(maker, noun, following, Argument(key, schema_of(current), current, Phrase("")))
        steps.append(step)
        current, key = step.result[step.key], f"{following.replace(' ', '_')}_id"
        entity = say_chain.OF_CHAIN.say(rng, split, n=following, e=entity)
    given: Given = (Argument(key, schema_of(current), current, Phrase("")), entity)
    last = nouns[-1]
    kind = rng.choices(("get", "delete", "update", "stop", "run"), (64, 10, 10, 8, 8))[0]
    final = make(maker, kind, last, given=given, avoid=nouns)
    final.arguments = [argument for argument in final.arguments if argument.phrase is not None]
    steps.append(final)
    phrase = final.phrase
    if kind in ("get", "delete", "stop") and len(final.arguments) == 1 and rng.random() < 0.5:
        phrase = in_steps(maker, start, nouns, final)
    tools = [step.spec for step in steps]
    tools += distractors(maker, [final], some(rng, MAX_TOOLS - calls), hard=0.3)
    text = request(rng, split, phrase)
    groups = [[call_of(step)] for step in steps]
    return Plan(text, shuffled(rng, tools), groups, answer_of([final]), must_say(final), [step.name for step in steps])


def in_steps(maker: Maker, start: Phrase, nouns: Sequence[str], final: Action) -> Phrase:
    """A chain told one step after the other."""
    rng, split = maker.rng, maker.split
    first = say_chain.STEPS_FIRST.say(rng, split, e=start)
    if final.kind == "get":
        last = say_chain.STEPS_ATTRIBUTE.say(rng, split, a=final.key, n=nouns[-1])
    else:
        verb = final.description.split()[0].lower()
        verb = verb if verb in lexicon.verbs(split, final.kind) else maker.verb(final.kind)
        last = say_chain.STEPS_ACT.say(rng, split, verb=spoken(verb), n=nouns[-1], s=Phrase(""))
    if len(nouns) == 1:
        return say_chain.STEPS_TWO.say(rng, split, first=first, last=last)
    middle = [say_chain.STEPS_NEXT.say(rng, split, n=noun) for noun in nouns[1:]]
    return say_chain.STEPS.say(rng, split, first=first, next=Phrase(", ".join(middle)), last=last)


def id_result(maker: Maker, noun: str) -> tuple[Json, str]:
    """What a tool returns that gives a thing's id."""
    key = "id" if maker.rng.random() < 0.2 else f"{noun.replace(' ', '_')}_id"
    result: Json = {key: maker.identifier()}
    if maker.rng.random() < 0.2:
        other, kind = maker.attribute(noun)
        result[other] = maker.value(kind)
        if maker.rng.random() < 0.5:
            result = dict(reversed(list(result.items())))
    return result, key


def find(maker: Maker, noun: str, value: str) -> Action:
    """The tool that gives the id for a name."""
    verb = maker.verb("search")
    result, key = id_result(maker, noun)
    description = describe(maker, tool_words.DESCRIBE_FIND, verb, an=an(noun), n=noun)
    parameter = "name" if maker.rng.random() < 0.6 else maker.generic_name()
    if maker.rng.random() < 0.2 and not maker.opaque:
        parameter = f"{noun.replace(' ', '_')}_name"
    argument = Argument(parameter, {"type": "string"}, value, Phrase(""))
    name, why = tool_name(maker, verb, noun), purpose(description, noun)
    return Action(name, description, [argument], Phrase(""), result, noun, "find", noun, why, key)


def link(maker: Maker, noun: str, following: str, argument: Argument) -> Action:
    """The tool that leads from one thing to another that belongs to it."""
    verb = maker.verb("get")
    result, key = id_result(maker, following)
    description = describe(maker, tool_words.DESCRIBE_LINK, verb, a=following, an=an(noun), n=noun)
    name = tool_name(maker, verb, noun, following)
    about, why = f"{noun} {following}", purpose(description, noun, following)
    return Action(name, description, [argument], Phrase(""), result, noun, "link", about, why, key)


def repair(maker: Maker) -> Plan:
    """The first call fails with an error that says what to do."""
    rng, split = maker.rng, maker.split
    how = rng.choice(("suggest", "suggest", "again", "prefix", "flag"))
    noun = maker.noun()
    argument, _ = maker.entity(noun, "name")
    if how == "prefix":
        letters, digits = lexicon.code(rng, split).split("-")
        argument.value, argument.shown = digits, digits
        if not maker.opaque:
            argument.name = f"{noun.replace(' ', '_')}_id"
    entity = say.ENTITY["id" if how == "prefix" else "name"].say(rng, split, n=noun, v=argument.value)
    kind = rng.choice(("get", "get", "delete", "run", "rate", "rent", "move", "stop", "update"))
    action = make(maker, kind, noun, given=(argument, entity))
    first = dict(action.call)
    second = dict(first)
    if how == "suggest":
        second[argument.name] = variant(maker, argument.value)
        message = tool_words.ERROR_SUGGEST.say(rng, split, n=noun, v=argument.value, r=second[argument.name])
    elif how == "prefix":
        second[argument.name] = f"{letters}-{digits}"
        message = tool_words.ERROR_PREFIX.say(rng, split, p=argument.words, v=f"{letters}-")
    elif how == "flag":
        flag = rng.choice(lexicon.of_split(CONFIRM_WORDS, split))
        while flag in first or any(flag == a.name for a in action.arguments):
            flag = rng.choice(lexicon.of_split(CONFIRM_WORDS, split))
        action.arguments.append(Argument(flag, {"type": "boolean"}, required=False))
        second[flag] = True
        message = tool_words.ERROR_FLAG.say(rng, split, p=flag)
    else:
        message = tool_words.ERROR_AGAIN.say(rng, split)
    error = {"error": re.sub("[\x02\x03]", "", message)}
    tools = shuffled(rng, [action.spec, *distractors(maker, [action], some(rng, 5), hard=0.2)])
    failed = Call(action.name, first, error, action.intent, error=True)
    groups = [[failed], [Call(action.name, second, action.result, action.intent)]]
    text = request(rng, split, action.phrase)
    return Plan(text, tools, groups, answer_of([action]), must_say(action), [action.name], extra={"repair": how})


def variant(maker: Maker, value: str) -> str:
    """Another spelling of a name, of the same split."""
    *start, last = value.split(" ")
    for _ in range(200):
        end = lexicon.pseudoword(maker.rng, maker.split)
        word = last[: min(3, len(last) - 1)] + end[-maker.rng.randint(2, 3) :]
        if word != last and lexicon.split_of(word) == maker.split:
            return " ".join([*start, word])
    return " ".join([*start, lexicon.pseudoword(maker.rng, maker.split).capitalize()])


def none(maker: Maker) -> Plan:
    """No declared tool can do it."""
    rng = maker.rng
    maker.literal = True
    wanted = make(maker)
    hard = 0.35 if rng.random() < 0.5 else 0.0
    tools = distractors(maker, [wanted], rng.randint(1, 7), hard)
    text = request(rng, maker.split, wanted.phrase)
    return Plan(text, shuffled(rng, tools), [], NO_TOOL, [], [], refused=f"For {wanted.about}")


def ask(maker: Maker) -> Plan:
    """A required argument is missing: ask the user, then call."""
    rng, split = maker.rng, maker.split
    kind = rng.choices(OMITTING, (15, 40, 20, 8, 8, 5, 4))[0]
    maker.sentence = rng.choice(("do", "do", "say"))  # a fragment without its argument would be a bare noun
    action = make(maker, kind, omit=True)
    maker.sentence = None
    missing = action.missing
    if missing is None:
        raise AssertionError(f"nothing is missing from a request of kind {kind}")
    value = f'"{missing.value}"' if str(missing.value).count(" ") > 1 else missing.value
    reply = say.REPLY.say(rng, split, v=value, p=missing.words)
    text = re.sub("[\x02\x03]", "", reply)
    if rng.random() < 0.5 and not str(missing.value).startswith(text[0]):
        text = text[0].upper() + text[1:]
    asked = {"question": f"Which {missing.words}?", "words": missing.words, "reply": text}
    tools = shuffled(rng, [action.spec, *distractors(maker, [action], some(rng, 5))])
    message = request(rng, split, action.phrase)
    return Plan(message, tools, [[call_of(action)]], answer_of([action]), must_say(action), [action.name], ask=asked)


BUILDERS: dict[str, Callable[[Maker], Plan]] = {
    "single": single,
    "choose": choose,
    "types": types,
    "parallel": parallel,
    "chain2": lambda maker: chain(maker, 2),
    "chain3": lambda maker: chain(maker, 3),
    "chain4": lambda maker: chain(maker, 4),
    "repair": repair,
    "none": none,
    "ask": ask,
    "pick": pick,
}


def build(skill: str, rng: Rng, split: Split) -> tuple[str, Json]:
    """The request and the data of one task. A third of the tasks has tools whose names say nothing.

    `intents` is for demonstrations alone: neither the world nor the verdict looks at it.
    """
    maker = Maker(rng, split, opaque=rng.random() < 0.36)
    plan = BUILDERS[skill](maker)
    data: Json = {
        "tools": [tool.to_openai() for tool in plan.tools],
        "groups": [[call.to_json() for call in group] for group in plan.groups],
        "answer": plan.answer,
        "must_say": plan.must_say,
        "opaque": is_opaque(plan),
        "intents": [[call.intent for call in group] for group in plan.groups] or [[plan.refused]],
        **plan.extra,
    }
    if plan.ask:
        data["ask"] = plan.ask
    return plan.request, json.loads(compact_json(data))


FUNCTION_WORDS = {
    "a",
    "an",
    "the",
    "of",
    "for",
    "to",
    "in",
    "on",
    "at",
    "by",
    "is",
    "it",
    "if",
    "me",
    "my",
    "our",
    "and",
}


def is_opaque(plan: Plan) -> bool:
    """Whether no word of the request is part of a right tool's name (a noun's plural counts as the noun)."""
    said = set(re.findall(r"[a-z]+", plan.request.lower())) - FUNCTION_WORDS
    said |= {word[:-1] for word in said if word.endswith("s")} | {word[:-2] for word in said if word.endswith("es")}
    names = {word for name in plan.right for word in name.lower().split("_")}
    names |= {name[:-1] for name in names if name.endswith("s")}
    return bool(plan.right) and not said & names

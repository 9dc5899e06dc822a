"""`openk2 worlds play`: a person is the agent of a simulated app, in the terminal or through a pipe.

The person sees what a model would see, and may look behind it: at the guards of a tool, at rows, at what has changed.
At the end the rubric judges, and the plan shows how an expert would have gone.
"""

from __future__ import annotations

import json
import random
import re
import shlex
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from difflib import get_close_matches
from typing import Any

from openk2.core import ToolCall, ToolSpec, UserError
from openk2.core.messages import as_unicode, compact_json
from openk2.synth.agents import agents_of
from openk2.synth.catalogue import domain_of, readable
from openk2.synth.tasks import TaskMaker
from openk2.worlds.apps.declaration import Domain
from openk2.worlds.apps.state import diff
from openk2.worlds.apps.user import UserTurn
from openk2.worlds.apps.world import Apps, AppTask, AppWorld, Grade, PlanTurn, Rubric

_HELP = """\
call TOOL key=value ...   call a tool, by name or number; also with {"key": 1}
say TEXT                  answer the user
tools [TEXT]              the tools, or those that a text occurs in
show TOOL                 what a tool takes, requires and does
state [ENTITY [ID]]       the rows of an entity
diff                      what has changed since the beginning
undo                      take the last call back
give up                   the verdict, and what an expert would have done
quit                      leave without it"""
_COMMANDS = (*re.findall(r"^(give up|\w+)", _HELP, re.M), "help")
_AGENTS = 8
_ATTEMPTS, _FAR = 20, 1_000_003
"""So many seeds, so far from each other, are tried for a task."""
_ROWS = 20
_FREE = "A free session: no user, no task."


class Mistake(Exception):
    """A line that cannot be done: the sentence that says why."""


def free_task(domain: Domain, seed: int, tools: int | None) -> AppTask:
    """The tools of a domain over a state, and nobody who wants anything."""
    names = sorted(domain.by_name)
    if tools is not None and tools < len(names):
        names = random.Random(f"play {seed}").sample(names, tools)
    return AppTask(
        domain=domain.name, state_seed=seed, user="", system="", tools=tuple(names), turns=(UserTurn(say=""),),
        rubric=Rubric(checkpoints=("",)),
    )  # fmt: skip


def drawn_task(apps: Apps, domain: Domain, seed: int, tools: int | None) -> AppTask:
    """A task of one of the domain's agents. Raises UserError if none can be made with the seed, as in a domain in whose
    states nothing can be done."""
    rng = random.Random(f"play {seed}")
    for attempt in range(_ATTEMPTS):
        agent = rng.choice(agents_of(domain, _AGENTS, seed + _FAR * attempt, {}))
        task = TaskMaker(apps, agent, seed + _FAR * attempt).make()
        if task is not None:
            break
    else:
        raise UserError(f"no task of {domain.name} can be made with --task {seed}: try another number")
    if tools is None:
        return task
    needed = [name for name in task.tools if name in task.rubric.pattern]
    others = [name for name in task.tools if name not in task.rubric.pattern]
    return task.model_copy(update={"tools": tuple(needed + others[: max(0, tools - len(needed))])})


class Session:
    """A session of commands. `line` does one; what comes of it is printed, as text or as lines of JSON."""

    def __init__(self, apps: Apps, domain: Domain, task: AppTask, *, free: bool, as_json: bool) -> None:
        self._apps, self.domain, self.task, self._free, self._json = apps, domain, task, free, as_json
        self._done: list[ToolCall | str] = []
        self._world = AppWorld(apps)
        opening = self._world.begin(task)
        self._first = self._world.state.copy()
        self.names = [spec.name for spec in self._world.tools]
        self.over = False
        self.grade: Grade | None = None
        title = f"{domain.title} ({domain.name})"
        if free:
            self._emit("start", f"{title}\n{_FREE}", world=domain.name, tools=self._listed(""))
        else:
            text = f"{title}\nsystem: {task.system}"
            self._emit("start", text, world=domain.name, system=task.system, tools=self._listed(""))
            self._emit("user", f"user: {opening[-1].content}", content=opening[-1].content)
        if not as_json:
            self._tools("")
            print("\nhelp names the commands.")

    def line(self, text: str) -> None:
        """Do what a line says; a mistake is answered with a sentence."""
        command, _, rest = as_unicode(text).strip().partition(" ")
        rest = rest.strip()
        if not command:
            return
        try:
            if command == "give" and rest == "up":
                self._give_up()
            elif command in self._commands and command != "give":
                self._commands[command](rest)
            else:
                close = get_close_matches(command, [*self._commands, "give up"], n=1)
                hint = f"did you mean {close[0]}?" if close else "help names the commands"
                raise Mistake(f"there is no command {command[:40]!r}: {hint}")
        except Mistake as e:
            self._emit("mistake", str(e), sentence=str(e))

    @property
    def _commands(self) -> dict[str, Callable[[str], None]]:
        return {
            "call": self._call, "say": self._say, "tools": self._tools, "show": self._show, "state": self._state,
            "diff": self._diff, "undo": self._undo, "quit": self._quit, "help": self._help,
        }  # fmt: skip

    def completions(self, before: str, word: str) -> list[str]:
        """What a word can become that stands behind a piece of a line."""
        parts = before.split()
        if not parts:
            found: Sequence[str] = _COMMANDS
        elif parts[0] in ("call", "show") and len(parts) == 1:
            found = self.names
        elif parts[0] == "call":
            try:
                properties = self._spec(self._tool(parts[1])).parameters["properties"]
            except Mistake:
                return []
            found = [f"{name}=" for name in properties if not any(part.startswith(f"{name}=") for part in parts)]
        elif parts[0] == "state" and len(parts) == 1:
            found = list(self.domain.entities)
        elif parts[0] == "give":
            found = ["up"]
        else:
            found = ()
        return [one for one in found if one.startswith(word)]

    def _emit(self, event: str, text: str, **data: Any) -> None:
        if self._json:
            print(json.dumps({"event": event} | data), flush=True)
        else:
            for line in text.split("\n"):
                print(_wrapped(line), flush=True)

    def _tool(self, name: str) -> str:
        """A tool by its name or number. Raises Mistake."""
        if not name:
            raise Mistake("name a tool, or its number: tools lists them")
        if name.isdecimal():
            if not 1 <= int(name[:9]) <= len(self.names):
                raise Mistake(f"there is no tool {name[:9]}: they are numbered from 1 to {len(self.names)}")
            return self.names[int(name) - 1]
        if name not in self.names:
            close = get_close_matches(name, self.names, n=1)
            hint = f"did you mean {close[0]}?" if close else "tools lists them"
            raise Mistake(f"there is no tool {name[:60]!r}: {hint}")
        return name

    def _spec(self, name: str) -> ToolSpec:
        return self._world.tools[self.names.index(name)]

    def _call(self, rest: str) -> None:
        name, _, given = rest.partition(" ")
        name, given = self._tool(name), given.strip()
        arguments = given if given.startswith("{") else compact_json(self._arguments(name, given))
        if given.startswith("{"):
            try:
                arguments = compact_json(json.loads(given))
            except (ValueError, RecursionError) as e:
                raise Mistake(f'the arguments are not JSON ({e}): write {{"key": value}}') from None
        call = ToolCall(f"functions.{name}:{len(self._done)}", name, arguments)
        result = self._world.execute(call)
        self._done.append(call)
        if self._json:
            self._emit("call", "", name=name, arguments=json.loads(arguments))
        self._emit("tool_result", _indented(result.content), name=name, content=result.content, error=result.error)

    def _arguments(self, name: str, given: str) -> dict[str, Any]:
        try:
            parts = shlex.split(given)
        except ValueError:
            raise Mistake("a quotation mark is missing: close the text with one") from None
        properties = self._spec(name).parameters["properties"]
        arguments: dict[str, Any] = {}
        for part in parts:
            key, equals, value = part.partition("=")
            if not equals:
                raise Mistake(f"{part[:40]!r} has no name: write key=value, with quotes around blanks")
            arguments[key] = _value(value, properties.get(key, {}).get("type", "string"))
        return arguments

    def _say(self, text: str) -> None:
        if self._free:
            raise Mistake("nobody listens in a free session: --task SEED brings a user")
        if not text:
            raise Mistake("say what? write the text behind say")
        answer = self._world.answer(text)
        self._done.append(text)
        if self._json:
            self._emit("assistant", "", content=text)
        if answer is None:
            self._finish()
        else:
            self._emit("user", f"user: {answer}", content=answer)

    def _listed(self, text: str) -> list[dict[str, Any]]:
        return [
            {"number": number, "name": spec.name, "description": spec.description}
            for number, spec in enumerate(self._world.tools, 1)
            if text.lower() in f"{spec.name} {spec.description}".lower()
        ]

    def _tools(self, text: str) -> None:
        found = self._listed(text)
        if not found:
            raise Mistake(f"no tool has {text[:40]!r} in its name or description")
        if self._json:
            self._emit("tools", "", tools=found)
            return
        widest = min(36, max(len(one["name"]) for one in found))
        for one in found:
            print(_cut(f"{one['number']:>3} {one['name']:<{widest}} {one['description']}"))

    def _show(self, rest: str) -> None:
        name = self._tool(rest)
        told, spec = readable(self.domain.by_name[name]), self._spec(name)
        required = spec.parameters.get("required", ())
        lines = [f"{name}: {told.description}"]
        for parameter, kind in told.parameters.items():
            about = spec.parameters["properties"][parameter].get("description", "")
            lines.append(f"  takes {parameter}: {kind}" + (f" - {about}" if about else ""))
        lines += [f"  requires {guard}" for guard in told.requires]
        lines += [f"  effect: {effect}" for effect in told.effects]
        lines += [f"  returns {told.returns}", f"  needed: {', '.join(required) or 'nothing'}"]
        self._emit("tool", "\n".join(lines), schema=dict(spec.parameters), **asdict(told))

    def _state(self, rest: str) -> None:
        entity, _, key = rest.partition(" ")
        state = self._world.state
        if not entity:
            counts = {name: len(state.rows(name)) for name in self.domain.entities}
            self._emit("state", "\n".join(f"{name}: {count} rows" for name, count in counts.items()), entities=counts)
            return
        if entity not in self.domain.entities:
            close = get_close_matches(entity, self.domain.entities, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(self.domain.entities)}"
            raise Mistake(f"there is no entity {entity[:40]!r}: {hint}")
        rows = state.rows(entity)
        if key:
            rows = [row for row in rows if row["id"] == key]
            if not rows:
                raise Mistake(f"no row of {entity} has the id {key[:40]!r}")
        lines = [
            f"{row['id']}: " + ", ".join(f"{field} {value}" for field, value in row.items() if field != "id")
            for row in rows[:_ROWS]
        ]
        if len(rows) > _ROWS:
            lines.append(f"and {len(rows) - _ROWS} more: state {entity} ID shows one")
        self._emit("state", "\n".join(lines) or "no rows", entity=entity, rows=rows)

    def _diff(self, rest: str) -> None:
        lines = diff(self._first, self._world.state)
        self._emit("diff", "\n".join(lines) or "nothing has changed", changes=lines)

    def _undo(self, rest: str) -> None:
        if not self._done:
            raise Mistake("there is no call to take back")
        last = self._done[-1]
        if not isinstance(last, ToolCall):
            raise Mistake("the last thing was an answer to the user, which cannot be taken back")
        # A world is a function of its task and of what is done: it is made again without the last call.
        self._done.pop()
        self._close()
        self._world = AppWorld(self._apps)
        self._world.begin(self.task)
        for one in self._done:
            if isinstance(one, ToolCall):
                self._world.execute(one)
            else:
                self._world.answer(one)
        self._emit("undo", f"taken back: {last.name}", name=last.name)

    def _give_up(self) -> None:
        if self._free:
            raise Mistake("there is nothing to give up in a free session: quit leaves it")
        self._finish()

    def _quit(self, rest: str) -> None:
        self.over = True

    def _help(self, rest: str) -> None:
        if self._json:
            self._emit("help", "", commands=list(_COMMANDS))
        else:
            print(_HELP)

    def _finish(self) -> None:
        """The verdict, and the way of an expert."""
        self.over, self.grade = True, self._world.judge()
        lines = [f"\n{'passed' if self.grade.passed else 'not passed'}: {100 * self.grade.score:.0f} of 100 points"]
        lines += [f"  {wrong}" for wrong in self.grade.wrong]
        self._emit("verdict", "\n".join(lines), **asdict(self.grade))
        plan = [turn.model_dump(mode="json") for turn in self.task.plan]
        lines = ["\nAn expert would have done this:"]
        for turn, asked in zip(self.task.plan, self.task.turns, strict=True):
            lines += [f"user: {asked.say}", *_way(turn)]
        self._emit("expert", "\n".join(lines), turns=plan)

    def _close(self) -> None:
        for state in self._world.states.values():
            state.close()

    def close(self) -> None:
        """Give the states back."""
        self._close()
        self._first.close()


def _way(turn: PlanTurn) -> Iterator[str]:
    """The lines of a turn of a plan."""
    if turn.question:
        yield f"  say {turn.question}"
    for wave in turn.waves:
        for call in wave:
            yield f"  call {call.name} " + " ".join(f"{name}={_typed(value)}" for name, value in call.arguments.items())
    yield f"  say {turn.answer}"


def _typed(value: Any) -> str:
    return shlex.quote(value if isinstance(value, str) else compact_json(value))


def _value(text: str, kind: str) -> Any:
    """A typed value as its parameter wants it; what is none stays text, and the tool says what it thinks of it."""
    if kind == "string":
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _width() -> int:
    return max(20, min(80, shutil.get_terminal_size().columns))


def _wrapped(line: str) -> str:
    indent = len(line) - len(line.lstrip())
    return textwrap.fill(
        line, _width(), subsequent_indent=" " * (indent + 2), break_on_hyphens=False, drop_whitespace=True,
        replace_whitespace=False,
    )  # fmt: skip


def _cut(line: str) -> str:
    return line if len(line) <= _width() else line[: _width() - 3].rstrip() + "..."


def _indented(content: str) -> str:
    """A result as it came, in lines that can be read: a row of a list has its own."""
    try:
        value = json.loads(content)
    except ValueError:
        return "  " + content
    if isinstance(value, list):
        return "\n".join("  " + json.dumps(row, ensure_ascii=False) for row in value) or "  []"
    return "  " + json.dumps(value, ensure_ascii=False)


def _lines(session: Session, *, as_json: bool) -> Iterator[str]:
    """The lines that are typed or come through a pipe."""
    if not sys.stdin.isatty():
        for line in sys.stdin:
            if not as_json and line.strip():
                print(_wrapped(f"\n> {line.strip()}"), flush=True)
            yield line
        return
    _complete(session)
    prompt = "" if as_json else "\n> "
    while True:
        try:
            yield input(prompt)
        except EOFError:
            print()
            return


def _complete(session: Session) -> None:
    """Tab completes commands, tools and arguments where Python has readline."""
    try:
        import readline
    except ImportError:
        return

    def completed(word: str, number: int) -> str | None:
        before = readline.get_line_buffer()[: readline.get_begidx()]
        found = session.completions(before, word)
        if number >= len(found):
            return None
        return found[number] if found[number].endswith("=") else f"{found[number]} "

    readline.set_completer_delims(" ")
    readline.set_completer(completed)
    libedit = "libedit" in (readline.__doc__ or "")
    readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")


def play(name: str, seed: int, task_seed: int | None, tools: int | None, *, as_json: bool) -> bool:
    """Play a session to its end; whether it was passed, as a free one always is. Raises UserError for a world that is
    not there and a task that cannot be made."""
    domain = domain_of(name, seed)
    apps = Apps(lambda _: domain)
    task = free_task(domain, seed, tools) if task_seed is None else drawn_task(apps, domain, task_seed, tools)
    session = Session(apps, domain, task, free=task_seed is None, as_json=as_json)
    try:
        for line in _lines(session, as_json=as_json):
            session.line(line)
            if session.over:
                break
    finally:
        session.close()
    return task_seed is None or (session.grade is not None and session.grade.passed)

"""Tools without a declared meaning, played by a model over a state that code keeps.

The specs of an imported MCP server say what a tool takes, and seldom what it does. Here a model says what a call gives
and which records it adds, changes or takes away; both are checked, and the records are in SQLite, so that what was
written once is read again. Arguments are checked against the declared schema before anybody is asked. A failed call
changes nothing. What a model plays proves nothing: such tools are labelled model-backed wherever they are named.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationInfo, field_validator

from openk2.core import Message, ToolCall, ToolResult, UserError
from openk2.core.messages import compact_json, is_unicode
from openk2.synth.ask import Asker, fitting
from openk2.worlds.mcp.specs import Spec, arguments_of, validator_of

_SYSTEM = (
    "You simulate the tools of {server} ({category}) for a test. You are the server: exact, consistent and brief. You "
    "keep records in collections, such as users or files, and nothing else: what is not in a record did not happen. "
    "Answer in JSON alone."
)
_CALL = """The tools: {tools}

The records, by collection and id: {records}
{others}
The last calls: {calls}

The call to answer: {name} with {arguments}

Give as `result` what the real tool would return, as JSON, in the form that its description promises, and as \
`changes` the records that the call adds, replaces (give the whole record) or removes (record null). What the call \
asks about and is not there: if it would exist in a real system in use, make it up, and add it as a record, so that \
the next call finds it; if not, give an `error` and no changes. A call that only reads changes nothing that is there."""
_CALLS = 8
"""So many of the last calls are told again."""
_MOST_LETTERS = 60_000
"""Of all records together, as JSON."""
_SHORT = 600
_LONGEST = 20_000
"""Of other tools' rows, as JSON."""
_LONGEST_ARGUMENTS = 20_000
_Id = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class _Change(BaseModel):
    model_config = ConfigDict(extra="ignore")

    collection: _Id
    id: _Id
    record: dict[str, Any] | None


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore")

    result: Any = None
    error: Annotated[str, StringConstraints(max_length=2000, strip_whitespace=True)] = ""
    changes: Annotated[tuple[_Change, ...], Field(max_length=100)] = ()

    @field_validator("error", "changes", mode="before")
    @classmethod
    def _none(cls, value: Any, info: ValidationInfo) -> Any:
        # Models write null for what there is not.
        return value if value is not None else "" if info.field_name == "error" else ()


class Records:
    """Records of any form in collections, of one server. With `path` they are in a file, and there the next time."""

    def __init__(self, server: str, path: Path | None = None) -> None:
        if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
            problem = "it is a folder" if path.is_dir() else f"there is no folder {path.parent}"
            raise UserError(f"the state {path} cannot be used: {problem}; name a file in a folder that is there")
        try:
            self._connection = sqlite3.connect(":memory:" if path is None else path, isolation_level=None, timeout=1)
            tables = {name for (name,) in self._connection.execute("SELECT name FROM sqlite_master")}
            if path is not None and tables and "records" not in tables:
                raise UserError(
                    f"{path} is the database of another program: name a new file, or one of a session before"
                )
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS records "
                "(collection TEXT, id TEXT, record TEXT, PRIMARY KEY (collection, id))"
            )
            # Whether it has these columns and can be written is better known now than at the first call.
            self._connection.execute("SELECT collection, id, record FROM records LIMIT 1").fetchall()
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute("CREATE TABLE IF NOT EXISTS servers (name TEXT)")
            owner = self._connection.execute("SELECT name FROM servers").fetchone()
            if owner is None:
                self._connection.execute("INSERT INTO servers VALUES (?)", (server,))
            self._connection.execute("COMMIT")
            if owner is not None and owner[0] != server:
                raise UserError(
                    f"{path} has the records of {str(owner[0])[:80]!r}, and not of {server[:80]!r}: name a new file"
                )
            self.content()
        except (sqlite3.Error, ValueError) as e:
            raise UserError(f"the state {path} cannot be used: {e}; name a new file, or one of a session before") from e

    def content(self) -> dict[str, dict[str, Any]]:
        """Collection -> id -> record, in order."""
        found: dict[str, dict[str, Any]] = {}
        rows = self._connection.execute("SELECT collection, id, record FROM records ORDER BY collection, id")
        for collection, key, record in rows:
            found.setdefault(collection, {})[key] = json.loads(record)
        return found

    def apply(self, changes: Sequence[tuple[str, str, Mapping[str, Any] | None]]) -> None:
        """All changes or none. Raises UserError naming the first that cannot be."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            for collection, key, record in changes:
                if record is None:
                    gone = self._connection.execute(
                        "DELETE FROM records WHERE collection = ? AND id = ?", (collection, key)
                    )
                    if not gone.rowcount:
                        raise UserError(f"there is no record {key!r} in {collection!r} to be removed")
                else:
                    row = (collection, key, compact_json(record))
                    self._connection.execute("INSERT OR REPLACE INTO records VALUES (?, ?, ?)", row)
            letters = "coalesce(sum(length(collection) + length(id) + length(record)), 0)"
            ((all_letters,),) = self._connection.execute(f"SELECT {letters} FROM records")
            if all_letters > _MOST_LETTERS:
                raise UserError(f"the records would have more than {_MOST_LETTERS} letters: add fewer or shorter ones")
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def close(self) -> None:
        self._connection.close()


class Simulator:
    """Tools of one server that a model plays. `others` are rows that other tools of the server keep, which it may read.

    `failures` counts the calls that had no usable answer: they say nothing of who has called.
    """

    def __init__(
        self, server: str, category: str, specs: Sequence[Spec], asker: Asker, records: Records, *, seed: int = 0
    ) -> None:
        self.specs = {spec.name: spec for spec in specs}
        self.records, self.failures = records, 0
        self._asker, self._seed = asker, seed
        self._system = Message("system", _SYSTEM.format(server=server, category=category))
        self._validators = {spec.name: validator_of(spec) for spec in specs}
        self._calls: list[str] = []
        self._one = asyncio.Lock()

    async def call(self, call: ToolCall, others: Mapping[str, Any] | None = None) -> ToolResult:
        """What a call returns."""
        spec = self.specs.get(call.name)
        if spec is None:
            return ToolResult.failure(f"there is no tool {call.name!r}")
        try:
            arguments = arguments_of(call, self._validators[call.name])
        except UserError as e:
            return ToolResult.failure(str(e))
        if len(call.arguments) > _LONGEST_ARGUMENTS:
            return ToolResult.failure(f"the arguments have more than {_LONGEST_ARGUMENTS} letters")
        # What one call writes the next one reads.
        async with self._one:
            try:
                return await self._played(spec, arguments, others)
            except (UserError, sqlite3.Error, OSError, ValueError) as e:
                self.failures += 1
                return ToolResult.failure(f"the simulation has failed, not the call: {e}")

    async def _played(self, spec: Spec, arguments: Mapping[str, Any], others: Mapping[str, Any] | None) -> ToolResult:
        rows = f"Rows of the server's other tools, to be read: {compact_json(others)[:_LONGEST]}\n" if others else ""
        asked = _CALL.format(
            tools=compact_json([one.tool().to_openai()["function"] for one in self._relevant(spec)]),
            records=compact_json(self.records.content()),
            others=rows,
            calls="\n".join(self._calls[-_CALLS:]) or "none",
            name=spec.original,
            arguments=compact_json(arguments),
        )
        answer = await self._asker.ask([self._system, Message("user", asked)], _Answer, self._read, seed=self._seed)
        result = ToolResult.failure(answer.error) if answer.error else ToolResult(compact_json(answer.result))
        self._calls.append(f"{spec.original} with {compact_json(arguments)[:_SHORT]}: {result.content[:_SHORT]}")
        return result

    async def close(self) -> None:
        """Close the model and the records."""
        await self._asker.close()
        self.records.close()

    def _relevant(self, spec: Spec) -> list[Spec]:
        """The tool itself, and the names of the others: what a server does is clearer from all of them."""
        others = [Spec(one.name, one.original, one.description[:200], {}) for one in self.specs.values() if one != spec]
        return [spec, *others[:40]]

    def _read(self, raw: dict[str, Any]) -> _Answer:
        answer = fitting(_Answer)(raw)
        if answer.error and answer.changes:
            raise UserError("a call with an error must not have changes")
        if "result" not in raw and not answer.error:
            raise UserError("result: give one, or an error")
        try:
            if not is_unicode(compact_json(raw, finite=True)):
                raise UserError("the answer has half a character in it")
        except ValueError:
            raise UserError("a number in the answer is too large to be written") from None
        self.records.apply([(change.collection, change.id, change.record) for change in answer.changes])
        return answer

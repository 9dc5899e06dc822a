"""The state of a simulated app: a SQLite database in memory, with a hash and a diff.

A state is copied in microseconds, so that every rollout has its own. The hash does not depend on the order in which
rows were made, nor on the numbers of ids that were given since the state began: two ways to the same end are the same
end.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from openk2.worlds.apps.declaration import Domain
from openk2.worlds.apps.expression import Row

_SQL_TYPES = {"integer": "INTEGER", "number": "REAL", "boolean": "INTEGER"}
_FIRST_ID = 1001
_FEW = 200
"""With so many rows one that has changed is read again, and not all of them."""


class State:
    """The rows of all entities of a domain. Ids beyond those that it began with are new."""

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self._connection = _connect()
        self._names = {name: list(types) for name, types in domain.field_types.items()}
        self._booleans = {
            name: [field for field, kind in types.items() if kind == "boolean"]
            for name, types in domain.field_types.items()
        }
        self._next: dict[str, int] = dict.fromkeys(domain.entities, _FIRST_ID)
        self._begun: dict[str, int] = dict(self._next)
        self._digests: dict[str, str] = {}
        self._known: dict[str, dict[str, Row]] = {}
        """Rows that were read, and not written to since."""
        self._targets = {
            name: frozenset(field.ref for field in entity.fields.values() if field.ref is not None)
            for name, entity in domain.entities.items()
        }
        for name, types in domain.field_types.items():
            columns = [
                f'"{field}" {_SQL_TYPES.get(str(kind), "TEXT")}' for field, kind in types.items() if field != "id"
            ]
            columns = ["id TEXT PRIMARY KEY", *columns]
            self._connection.execute(f'CREATE TABLE "{name}" ({", ".join(columns)}) WITHOUT ROWID')

    def begun(self) -> State:
        """A copy that begins with the rows that are here."""
        other = self.copy()
        other._begun = dict(self._next)
        return other

    def copy(self) -> State:
        """A state of its own with the same rows and the same beginning. Not within a transaction: what it would copy is
        not decided yet."""
        assert not self._connection.in_transaction
        other = State.__new__(State)
        other.domain, other._names, other._booleans = self.domain, self._names, self._booleans
        other._targets, other._digests, other._known = self._targets, dict(self._digests), dict(self._known)
        other._next, other._begun = dict(self._next), dict(self._begun)
        other._connection = _connect()
        self._connection.backup(other._connection)
        return other

    def close(self) -> None:
        self._connection.close()

    def rows(self, entity: str) -> list[Row]:
        """All rows of an entity, by their ids. Do not write to them: they are read once and shared by copies."""
        return list(self._read(entity).values())

    def row(self, entity: str, key: Any) -> Row | None:
        """The row with an id. Do not write to it."""
        return self._read(entity).get(key) if isinstance(key, str) else None

    def _read(self, entity: str) -> dict[str, Row]:
        known = self._known.get(entity)
        if known is None:
            found = self._connection.execute(f'SELECT * FROM "{entity}" ORDER BY id')
            known = {values[0]: self._as_row(entity, values) for values in found}
            self._known[entity] = known
        return known

    def _as_row(self, entity: str, values: tuple[Any, ...]) -> Row:
        row = dict(zip(self._names[entity], values, strict=True))
        for field in self._booleans[entity]:
            if row[field] is not None:
                row[field] = row[field] == 1
        return row

    def _forget(self, entity: str) -> None:
        """What was read of an entity that is written to."""
        self._known.pop(entity, None)
        self._digests.pop(entity, None)

    def create(self, entity: str, values: Mapping[str, Any]) -> Row:
        """A new row with the next id."""
        self._forget(entity)
        key = f"{self.domain.entities[entity].prefix}-{self._next[entity]}"
        self._next[entity] += 1
        row: Row = {field: values.get(field) for field in self._names[entity]} | {"id": key}
        marks = ", ".join("?" * len(row))
        self._connection.execute(f'INSERT INTO "{entity}" VALUES ({marks})', tuple(row.values()))
        return row

    def update(self, entity: str, key: str, values: Mapping[str, Any]) -> None:
        """Other values in a row."""
        known = self._known.get(entity)
        self._forget(entity)
        fields = ", ".join(f'"{field}" = ?' for field in values)
        self._connection.execute(f'UPDATE "{entity}" SET {fields} WHERE id = ?', (*values.values(), key))
        if known is not None and len(known) <= _FEW:
            # The others are what they were.
            for row in self._connection.execute(f'SELECT * FROM "{entity}" WHERE id = ?', (key,)):
                self._known[entity] = known | {key: self._as_row(entity, row)}

    def delete(self, entity: str, key: str) -> None:
        """Take a row away."""
        self._forget(entity)
        self._connection.execute(f'DELETE FROM "{entity}" WHERE id = ?', (key,))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All changes of the block, or none if it raises. One may be inside of another."""
        before = dict(self._next), dict(self._digests), dict(self._known)
        self._connection.execute("SAVEPOINT here")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK TO here")
            self._connection.execute("RELEASE here")
            self._next, self._digests, self._known = before
            raise
        self._connection.execute("RELEASE here")

    def content(self) -> dict[str, list[Row]]:
        """All rows."""
        return {entity: self.rows(entity) for entity in self._names}

    def hash(self) -> str:
        """Of the content, in which the ids given since the state began do not count.

        The digests of entities that nothing was written to are kept: a copy of a state costs what it changes.
        """
        fresh = [entity for entity, following in self._next.items() if following > self._begun[entity]]
        new = self._stand_ins(fresh) if fresh else {}
        digests = []
        for entity in self._names:
            if new and (entity in fresh or not self._targets[entity].isdisjoint(fresh)):
                digests.append(_digest(self._renamed(entity, new)))
            else:
                if entity not in self._digests:
                    self._digests[entity] = _digest(self._raw(entity))
                digests.append(self._digests[entity])
        return hashlib.sha256("".join(digests).encode()).hexdigest()

    def _raw(self, entity: str) -> list[tuple[Any, ...]]:
        return [tuple(row.values()) for row in self.rows(entity)]

    def _renamed(self, entity: str, new: Mapping[str, str]) -> list[tuple[Any, ...]]:
        """The rows with stand-ins for new ids, in an order that follows from what they say."""
        return sorted((tuple(new.get(value, value) for value in row) for row in self._raw(entity)), key=repr)

    def _stand_ins(self, fresh: Sequence[str]) -> dict[str, str]:
        """For every new id one that follows from what the row says, new ids in it left out."""
        rows = [
            (entity, row)
            for entity in fresh
            for row in self._raw(entity)
            if int(row[0].rpartition("-")[2]) >= self._begun[entity]
        ]
        ids = {row[0] for _, row in rows}
        said = {row[0]: (entity, tuple("new" if value in ids else value for value in row)) for entity, row in rows}
        return {key: f"new-{_digest(what)[:16]}" for key, what in said.items()}


def _digest(content: object) -> str:
    return hashlib.sha256(repr(content).encode()).hexdigest()


def _connect() -> sqlite3.Connection:
    # Worlds are used by one rollout at a time, which may change its thread.
    return sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)


def diff(before: State, after: State) -> list[str]:
    """What has changed, a line for each row: `orders ORD-1003: status open -> cancelled`."""
    lines: list[str] = []
    old, new = before.content(), after.content()
    for entity in old:
        then = {row["id"]: row for row in old[entity]}
        now = {row["id"]: row for row in new[entity]}
        lines += [f"{entity} {key}: removed" for key in then if key not in now]
        for key, row in now.items():
            if key not in then:
                lines.append(f"{entity} {key}: new, " + ", ".join(f"{f} {v}" for f, v in row.items() if f != "id"))
                continue
            changed = [
                f"{field} {then[key][field]} -> {value}" for field, value in row.items() if then[key][field] != value
            ]
            if changed:
                lines.append(f"{entity} {key}: " + ", ".join(changed))
    return lines

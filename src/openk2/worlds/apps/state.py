"""The state of a simulated app: a SQLite database in memory, with a hash and a diff.

A state is copied in microseconds, so that every rollout has its own. The hash does not depend on the order in which
rows were made, nor on the numbers of ids that were given since the state began: two ways to the same end are the same
end.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from openk2.worlds.apps.declaration import Domain
from openk2.worlds.apps.expression import Row

_SQL_TYPES = {"integer": "INTEGER", "number": "REAL", "boolean": "INTEGER"}
_FIRST_ID = 1001


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
        for name, types in domain.field_types.items():
            columns = [
                f'"{field}" {_SQL_TYPES.get(str(kind), "TEXT")}' for field, kind in types.items() if field != "id"
            ]
            self._connection.execute(f'CREATE TABLE "{name}" (id TEXT PRIMARY KEY, {", ".join(columns)}) WITHOUT ROWID')

    def begun(self) -> State:
        """A copy that begins with the rows that are here."""
        other = self.copy()
        other._begun = dict(self._next)
        return other

    def copy(self) -> State:
        """A state of its own with the same rows and the same beginning."""
        other = State.__new__(State)
        other.domain, other._names, other._booleans = self.domain, self._names, self._booleans
        other._next, other._begun = dict(self._next), dict(self._begun)
        other._connection = _connect()
        self._connection.backup(other._connection)
        return other

    def close(self) -> None:
        self._connection.close()

    def rows(self, entity: str) -> list[Row]:
        """All rows of an entity, by their ids."""
        return [self._row(entity, found) for found in self._connection.execute(f'SELECT * FROM "{entity}" ORDER BY id')]

    def row(self, entity: str, key: Any) -> Row | None:
        """The row with an id."""
        found = self._connection.execute(f'SELECT * FROM "{entity}" WHERE id = ?', (key,)).fetchone()
        return None if found is None else self._row(entity, found)

    def _row(self, entity: str, values: tuple[Any, ...]) -> Row:
        row = dict(zip(self._names[entity], values, strict=True))
        for field in self._booleans[entity]:
            row[field] = None if row[field] is None else bool(row[field])
        return row

    def create(self, entity: str, values: Mapping[str, Any]) -> Row:
        """A new row with the next id."""
        key = f"{self.domain.entities[entity].prefix}-{self._next[entity]}"
        self._next[entity] += 1
        row: Row = {field: values.get(field) for field in self._names[entity]} | {"id": key}
        marks = ", ".join("?" * len(row))
        self._connection.execute(f'INSERT INTO "{entity}" VALUES ({marks})', tuple(row.values()))
        return row

    def update(self, entity: str, key: str, values: Mapping[str, Any]) -> None:
        """Other values in a row."""
        fields = ", ".join(f'"{field}" = ?' for field in values)
        self._connection.execute(f'UPDATE "{entity}" SET {fields} WHERE id = ?', (*values.values(), key))

    def delete(self, entity: str, key: str) -> None:
        self._connection.execute(f'DELETE FROM "{entity}" WHERE id = ?', (key,))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All changes of the block, or none if it raises."""
        before = dict(self._next)
        self._connection.execute("BEGIN")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            self._next = before
            raise
        self._connection.execute("COMMIT")

    def content(self) -> dict[str, list[Row]]:
        """All rows."""
        return {entity: self.rows(entity) for entity in self._names}

    def hash(self) -> str:
        """Of the content, in which the ids given since the state began do not count."""
        content = self.content()
        new = self._stand_ins(content)
        if new:
            refs = {
                entity: ["id", *(field for field, declared in part.fields.items() if declared.ref is not None)]
                for entity, part in self.domain.entities.items()
            }
            for entity, rows in content.items():
                for row in rows:
                    for field in refs[entity]:
                        row[field] = new.get(row[field], row[field])
                rows.sort(key=lambda row: json.dumps(row))
        return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()

    def _stand_ins(self, content: Mapping[str, list[Row]]) -> dict[str, str]:
        """For every new id one that follows from what the row says, new ids in it left out."""
        fresh = {
            row["id"]
            for entity, rows in content.items()
            for row in rows
            if int(row["id"].rpartition("-")[2]) >= self._begun[entity]
        }
        if not fresh:
            return {}
        said: dict[str, list[str]] = {}
        for entity, rows in content.items():
            for row in rows:
                if row["id"] in fresh:
                    plain = {field: "new" if value in fresh else value for field, value in row.items()}
                    said.setdefault(entity + json.dumps(plain, sort_keys=True), []).append(row["id"])
        return {
            key: f"new-{hashlib.sha256(text.encode()).hexdigest()[:16]}" for text, keys in said.items() for key in keys
        }


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

"""The way out: ids that finish JSON under way, as few as can be found, so that a call is whole before the ids run out.

A model that never closes a string would use up its limit inside of it. So a guide knows, at every position inside of
JSON, ids that lead to the end, and lets an id pass only if an end stays within reach behind it; else the first id of
the way it knows is taken instead. That is right whatever the schema, because the way is checked by the grammar itself;
how early a model is stopped depends on how short the ways are that this search finds.

Shapes: V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from llguidance import LLMatcher
from numpy.typing import NDArray

from openk2.engine.hints import Hints, Multiple

_GOOD_ENOUGH = 24
"""A way of so many ids is not searched any shorter."""
_LONGEST = 2048
_QUICK = 160
"""So many choices are made while others wait."""
_HINTED = 16
"""So many ids of hints are tried for each choice that a search may make."""
_BEGUN, _CLOSING = 5, 4
"""In so many places a way that is known is taken up again behind an id that comes instead of its beginning."""
# Ranks in strings: what closes is under half of this, and other pieces begin here.
_OTHER, _UNUSUAL = 1 << 20, 1 << 16


@dataclass(frozen=True, slots=True)
class Place:
    """Where JSON is: inside a string, there behind a backslash, or behind these letters of a number."""

    inside: bool = False
    escaped: bool = False
    number: str = ""


@dataclass(frozen=True, slots=True)
class Spelled:
    """Hints whose texts are spelled in ids."""

    texts: tuple[tuple[int, ...], ...] = ()
    multiples: tuple[Multiple, ...] = ()


_NO_HINTS = Spelled()
_NOTHING: Mapping[bytes, tuple[int, ...]] = {}


class Closer:
    """Finds ways out for matchers of one tokenizer.

    Args:
        pieces: the bytes of the ids; behind them all are reserved.
        size: ids in a mask.
        end: the id that the matchers end with.

    The search is greedy: outside of strings close what is open, else write the least that the schema lets through; in
    a string close it, else go on with what the schema hints at, if the string may end behind it, else with the longest
    piece; numbers likewise. Where that finds no end, or a far one, what led on comes last when it is written again:
    pieces of a string or number that goes on (a pattern like a+b), and names and values in an object in which another
    one opens (a tree whose nodes may be leaves).

    What a search may ask of the grammar is bounded by counts, so that one schema does not hold up others, and by no
    time, so that answers can be had again.
    """

    def __init__(self, pieces: Sequence[bytes], size: int, end: int) -> None:
        self._end = end
        self._pieces = pieces
        self.longest_piece = max(map(len, pieces))
        outside = [_rank_outside(piece) for piece in self._pieces]
        closing = [_rank_closing(piece) for piece in self._pieces]
        length_V = np.array([len(piece) for piece in self._pieces])
        self._ids = {piece: i for i, piece in reversed(list(enumerate(pieces))) if piece}
        plain_V = np.array([piece.isascii() and piece.isalnum() for piece in self._pieces])
        closing_V = np.array(closing)
        # A string ends with a quote, a number where something else may follow.
        self._quotes = self._known(b'"')
        self._followers = [*self._known(b",", b"}", b"]"), end]
        self._digits = self._known(b"1", b"9")
        self._first_V = np.full(size, 256)
        self._first_V[: len(pieces)] = [piece[0] if piece else 256 for piece in self._pieces]
        self._outside_V = self._with_end(np.array(outside), size)
        self._inside = [
            self._with_end(np.where(closing_V >= 0, closing_V, _OTHER + ~plain_V * _UNUSUAL + taste_V), size)
            for taste_V in (-length_V, length_V)
        ]

    def _known(self, *pieces: bytes) -> list[int]:
        return [self._ids[piece] for piece in pieces if piece in self._ids]

    def _with_end(self, ranks_V: NDArray[np.int64], size: int) -> NDArray[np.int64]:
        """Ranks of all ids: the end before all others, reserved ids never."""
        out_V = np.full(size, np.iinfo(np.int64).max // 2)
        out_V[: len(ranks_V)] = ranks_V
        out_V[self._end] = -1
        return out_V

    def behind(self, place: Place, token: int) -> Place:
        """Where JSON is after one more id."""
        inside, escaped, number = place.inside, place.escaped, place.number
        for byte in self._pieces[token] if token < len(self._pieces) else b"":
            if escaped:
                escaped = False
            elif inside and byte == ord("\\"):
                escaped = True
            elif byte == ord('"'):
                inside, number = not inside, ""
            elif not inside:
                goes_on = byte in (b"-+.0123456789eE" if number else b"-0123456789")
                number = number + chr(byte) if goes_on else ""
        return Place(inside, escaped, number)

    def spelled(self, hints: Hints) -> Spelled:
        spelled: dict[bytes, tuple[int, ...]] = {}
        for text in hints.texts:  # short before long, which end in them
            spelled[text] = self._spelled(text, spelled)
        return Spelled(tuple(filter(None, spelled.values())), hints.multiples)

    def way(
        self, matcher: LLMatcher, place: Place, hints: Spelled = _NO_HINTS, most: int = _LONGEST, effort: int = _LONGEST
    ) -> tuple[int, ...] | None:
        """Ids from the matcher's state at `place` to its end, the end included; None if none of at most `most` ids is
        found, by at most `effort` choices in each of three passes. The matcher stays as it is.
        """
        best: tuple[int, ...] | None = None
        for inside_V, varied in ((self._inside[0], False), (self._inside[0], True), (self._inside[1], True)):
            found = self._greedy(matcher.deep_copy(), place, hints, inside_V, most, effort, varied)
            if found is not None and (best is None or len(found) < len(best)):
                best, most = found, len(found)
            if best is not None and len(best) <= _GOOD_ENOUGH:
                break
        return best

    def way_behind(
        self, matcher: LLMatcher, place: Place, token: int, hints: Spelled, most: int, known: Sequence[int]
    ) -> tuple[int, ...] | None:
        """A way of at most `most` ids behind `token`, which comes next instead of the way that is known.

        It ends as that one does, if it can: that is found soon, and others wait.
        """
        ahead = matcher.deep_copy()
        if not ahead.consume_token(token):
            return None
        for tail in self._tails(known, token):
            if len(tail) <= most and leads_out(ahead, tail):
                return tail
        tails = list(self._tails(known, token))
        return self._greedy(ahead, self.behind(place, token), hints, self._inside[0], most, _QUICK, True, tails)

    def _tails(self, way: Sequence[int], token: int) -> Iterator[tuple[int, ...]]:
        """How a way may end behind an id that comes instead of it."""
        way = tuple(way)
        # The id stands for some of the ids, or for as many letters, or for what comes before something closes.
        for begun in range(min(_BEGUN, len(way))):
            yield way[begun:]
        left = len(self._pieces[token])
        for at, piece in enumerate(self._pieces[i] for i in way[:-1]):
            if left < len(piece):
                yield (*self._spelled(piece[left:]), *way[at + 1 :])
                break
            left -= len(piece)
        closing = (at for at, i in enumerate(way) if i == self._end or self._pieces[i][:1] in (b'"', b",", b"}", b"]"))
        for at in islice(closing, _CLOSING):
            yield way[at:]

    def _greedy(
        self,
        matcher: LLMatcher,
        place: Place,
        hints: Spelled,
        inside_V: NDArray[np.int64],
        most: int,
        effort: int,
        varied: bool,
        tails: Sequence[tuple[int, ...]] = (),
    ) -> tuple[int, ...] | None:
        ids: list[int] = []
        tried = _Tried(effort * _HINTED)
        for _ in range(effort):
            joined = [tail for tail in tails if leads_out(matcher, tail)]
            if joined:
                # Back on a way that is known: going on would make nothing shorter.
                shortest = min(joined, key=len)
                return (*ids, *shortest) if len(ids) + len(shortest) <= most else None
            following = matcher.compute_ff_tokens() or self._chosen(matcher, place, hints, inside_V, tried, varied)
            if not following or len(ids) + len(following) > most:
                return None
            for token in following:
                ids.append(token)
                if token == self._end:
                    return tuple(ids)
                if not matcher.consume_token(token):
                    return None
                if varied:
                    tried.note(self._pieces[token], place.inside)
                place = self.behind(place, token)
        return None

    def _chosen(
        self,
        matcher: LLMatcher,
        place: Place,
        hints: Spelled,
        inside_V: NDArray[np.int64],
        tried: _Tried,
        varied: bool,
    ) -> Sequence[int]:
        """What to go on with; nothing where a grammar has become too much for its limits."""
        bits = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
        if matcher.is_error():
            return ()
        allowed_V = np.unpackbits(bits, bitorder="little", count=len(self._outside_V))
        if hinted := self._hinted(matcher, place, hints, allowed_V, tried):
            return hinted
        allowed = np.flatnonzero(allowed_V)
        ranks = (inside_V if place.inside else self._outside_V)[allowed]
        if varied:
            ranks = ranks + tried.penalties[tried.before][self._first_V[allowed]]
        return (int(allowed[ranks.argmin()]),)

    def _hinted(
        self, matcher: LLMatcher, place: Place, hints: Spelled, allowed_V: NDArray[np.uint8], tried: _Tried
    ) -> Sequence[int]:
        """Ids behind which the string or number that is under way may end, if it may not here and one of the hints
        leads there."""
        if place.escaped or not (hints.texts if place.inside else hints.multiples):
            return ()
        ends = self._quotes if place.inside else self._followers
        is_under_way = place.inside or place.number or allowed_V[self._digits].any()
        if allowed_V[ends].any() or not is_under_way:
            return ()
        for ids in hints.texts if place.inside else self._completed(place.number, hints.multiples):
            if not allowed_V[ids[0]]:
                continue
            tried.left -= len(ids)
            if tried.left < 0:
                break
            for end in ends:
                fitting = matcher.validate_tokens([*ids, end])
                if fitting > len(ids):
                    return ids
                if fitting < len(ids):
                    break
        return ()

    def _completed(self, number: str, multiples: Sequence[Multiple]) -> Iterator[tuple[int, ...]]:
        """Digits that make a multiple of a number that is begun."""
        for multiple in multiples:
            yield from filter(None, (self._spelled(digits.encode()) for digits in multiple.endings(number)))

    def _spelled(self, text: bytes, known: Mapping[bytes, tuple[int, ...]] = _NOTHING) -> tuple[int, ...]:
        """Ids of a text, the longest piece first; none if it has bytes that no piece has."""
        ids: list[int] = []
        while text and text not in known:
            sizes = range(min(len(text), self.longest_piece), 0, -1)
            size = next((size for size in sizes if text[:size] in self._ids), 0)
            if not size:
                return ()
            ids.append(self._ids[text[:size]])
            text = text[size:]
        return (*ids, *known.get(text, ()))


class _Tried:
    """What was written in strings and numbers, by its first byte and the byte before it, and how far back that puts it
    from now on. `left` is how many ids of hints may still be tried."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.penalties = np.zeros((256, 257), dtype=np.int64)
        self.before = 0
        self._by_depth: list[list[tuple[int, int]]] = [[]]

    def note(self, piece: bytes, inside: bool) -> None:
        place = self.before, piece[0]
        if inside and not piece.startswith(b'"'):
            self.penalties[place] += _OTHER
            self._by_depth[-1].append(place)
        elif not inside and piece[:1].isdigit():
            self.penalties[place] += 1
        self.before = piece[-1]
        for byte in piece:
            if byte == ord('"'):
                inside = not inside
            elif not inside and byte in b"{[":
                for led_on in set(self._by_depth[-1]):
                    self.penalties[led_on] += _OTHER * _LONGEST
                self._by_depth.append([])
            elif not inside and byte in b"}]" and len(self._by_depth) > 1:
                self._by_depth.pop()


def leads_out(matcher: LLMatcher, ids: Sequence[int]) -> bool:
    """Whether `ids` may all come next."""
    return int(matcher.validate_tokens(list(ids))) == len(ids)


def _rank_outside(piece: bytes) -> int:
    """The order in which ids are tried between strings; small is early."""
    longer_first = -min(len(piece), 63)
    if piece.strip(b"}]") == b"" and piece:
        return 100 + longer_first
    if piece in (b'""', b'""}', b'""]', b"[]", b"{}", b"[]}", b"{}}"):
        return 200 + longer_first
    if piece == b'"':
        return 300
    if piece in (b",", b":"):
        return 400
    if any(word.startswith(piece) for word in (b"null", b"true", b"false")):
        return 500 + longer_first
    if piece.isdigit():
        return 600 + len(piece)
    if piece in (b"-", b"."):
        return 700
    if piece in (b"[", b"{"):
        return 800 + piece[0]
    return 1 << 20


def _rank_closing(piece: bytes) -> int:
    """The order of ids that end a string, and close what is around it; -1 for others."""
    if piece[:1] == b'"' and piece[1:].strip(b"}]") == b"":
        return 100 - min(len(piece), 63)
    return -1

"""Calico's selectors: whether a text is one, and whether it selects an endpoint with some labels.

The grammar and its meaning are those of libcalico-go/lib/selector (tokenizer.go, parser.go, ast.go): `||`
binds weakest, then `&&`, then `!`; what compares a label that an endpoint does not have is false, and `!=`
and `not in` are true. Less is taken here in two places: an empty selector, which would mean everything and
is most often a slip, and `global()`, which no rule of the lab can use.
"""

import re
from collections.abc import Callable, Mapping
from typing import NoReturn

Labels = Mapping[str, str]
Selects = Callable[[Labels], bool]

_TOKEN = re.compile(
    r"""[ \t]*(?:
        (?P<string>"[^"]*"|'[^']*')
        | (?P<function>(?:has|all)\()
        | (?P<symbol>==|!=|&&|\|\||[(){},!])
        | (?P<word>[A-Za-z0-9_./-]+)
    )""",
    re.VERBOSE,
)
_LONGEST_LABEL = 512


class SelectorError(ValueError):
    """A text is no selector; the message says what is missing, and where."""


def parse(text: str) -> Selects:
    """Read a selector.

    Args:
        text: For example `role == 'web' && !has(old)`.

    Returns:
        What says whether an endpoint with these labels is selected.

    Raises:
        SelectorError: It is none.
    """
    parser = _Parser(text)
    if parser.kind == "end":
        parser.fail("is empty; write all() for every endpoint")
    selects = parser.either()
    if parser.kind != "end":
        parser.expect("&&, || or the end")
    return selects


class _Parser:
    """One look ahead: `kind` and `token` are those of the token that comes next."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.start = self.end = 0
        self.kind = self.token = ""
        self.advance()

    def advance(self) -> str:
        """Go on to the next token, and return the one that was next until now."""
        passed = self.token
        found = _TOKEN.match(self.text, self.end)
        if found:
            self.kind = str(found.lastgroup)
            self.token = found[self.kind]
            self.start, self.end = found.span(self.kind)
            return passed
        rest = self.text[self.end :].lstrip(" \t")
        self.start = len(self.text) - len(rest)
        if rest:
            wanted = {"=": "==", "&": "&&", "|": "||", "'": "a closing '", '"': 'a closing "'}.get(rest[0])
            self.fail(f"expected {wanted}" if wanted else f"{rest[0]!r} is no part of a selector")
        self.kind, self.token = "end", ""
        return passed

    def fail(self, problem: str) -> NoReturn:
        raise SelectorError(f"{self.text!r} is no selector: {problem} (character {self.start + 1})")

    def expect(self, wanted: str) -> NoReturn:
        self.fail(f"expected {wanted}, not {self.token or 'its end'}")

    def take(self, token: str) -> None:
        if self.kind != "symbol" or self.token != token:
            self.expect(token)
        self.advance()

    def took(self, token: str) -> bool:
        if self.kind != "symbol" or self.token != token:
            return False
        self.advance()
        return True

    def either(self) -> Selects:
        parts = [self.both()]
        while self.took("||"):
            parts.append(self.both())
        return parts[0] if len(parts) == 1 else lambda labels: any(part(labels) for part in parts)

    def both(self) -> Selects:
        parts = [self.operation()]
        while self.took("&&"):
            parts.append(self.operation())
        return parts[0] if len(parts) == 1 else lambda labels: all(part(labels) for part in parts)

    def operation(self) -> Selects:
        if self.took("!"):
            negated = self.operation()
            return lambda labels: not negated(labels)
        if self.took("("):
            inner = self.either()
            self.take(")")
            return inner
        if self.kind == "function":
            function = self.advance()
            label = self.label() if function == "has(" else None
            self.take(")")
            return lambda labels: label is None or label in labels
        return self.comparison(self.label())

    def label(self) -> str:
        if self.kind != "word":
            self.expect("a label, has(...), all() or (")
        if len(self.token) > _LONGEST_LABEL:
            self.fail(f"a label has at most {_LONGEST_LABEL} characters")
        return self.advance()

    def comparison(self, label: str) -> Selects:
        operator = self.operator()
        if operator in ("in", "not in"):
            values = self.set_of_strings()
            return lambda labels: (labels.get(label) in values) == (operator == "in")
        value = self.string()
        match operator:
            case "==":
                return lambda labels: labels.get(label) == value
            case "!=":
                return lambda labels: labels.get(label) != value
            case "contains":
                return lambda labels: label in labels and value in labels[label]
            case "starts with":
                return lambda labels: label in labels and labels[label].startswith(value)
            case _:
                return lambda labels: label in labels and labels[label].endswith(value)

    def operator(self) -> str:
        if self.kind == "symbol" and self.token in ("==", "!="):
            return self.advance()
        if self.kind == "word":
            for operator in ("contains", "in", "starts with", "ends with", "not in"):
                first, _, second = operator.partition(" ")
                # Calico reads `startswith` and `notin` too.
                if self.token in (first, first + second):
                    if self.advance() == first and second:
                        self.take_word(second)
                    return operator
        return self.expect("==, !=, in, not in, contains, starts with or ends with")

    def take_word(self, word: str) -> None:
        if self.kind != "word" or self.token != word:
            self.expect(word)
        self.advance()

    def string(self) -> str:
        if self.kind != "string":
            self.expect("a value in quotes")
        return self.advance()[1:-1]

    def set_of_strings(self) -> frozenset[str]:
        self.take("{")
        values = []
        while self.kind == "string":
            values.append(self.string())
            if not self.took(","):
                break
        self.take("}")
        return frozenset(values)

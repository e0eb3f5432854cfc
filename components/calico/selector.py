"""Parses Calico's selectors, and evaluates them on an endpoint's labels.

Grammar and semantics are those of libcalico-go/lib/selector (tokenizer.go, parser.go, ast.go). `||` has the
lowest precedence, then `&&`, then `!`. If an endpoint does not have the label, `!=` and `not in` are true and
every other comparison is false. Two selectors of Calico are refused: the empty one, because it selects
everything and is usually a mistake, and `global()`, because no rule of the lab can use it.
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
    """A text is not a selector; the message says what is expected, and at which character."""


def parse(text: str) -> Selects:
    """Parse a selector.

    Args:
        text: For example `role == 'web' && !has(old)`.

    Returns:
        A function that says whether an endpoint with some labels is selected.

    Raises:
        SelectorError: The text is not a selector.
    """
    parser = _Parser(text)
    if parser.kind == "end":
        parser.fail("is empty; write all() for every endpoint")
    selects = parser.either()
    if parser.kind != "end":
        parser.expect("&&, || or the end")
    return selects


class _Parser:
    """Recursive descent with one token of lookahead: `kind` and `token` are those of the next token."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.start = self.end = 0
        self.kind = self.token = ""
        self.advance()

    def advance(self) -> str:
        """Consume the next token, and return it."""
        consumed = self.token
        found = _TOKEN.match(self.text, self.end)
        if found:
            self.kind = str(found.lastgroup)
            self.token = found[self.kind]
            self.start, self.end = found.span(self.kind)
            return consumed
        rest = self.text[self.end :].lstrip(" \t")
        self.start = len(self.text) - len(rest)
        if rest:
            wanted = {"=": "==", "&": "&&", "|": "||", "'": "a closing '", '"': 'a closing "'}.get(rest[0])
            self.fail(f"expected {wanted}" if wanted else f"{rest[0]!r} is not allowed in a selector")
        self.kind, self.token = "end", ""
        return consumed

    def fail(self, problem: str) -> NoReturn:
        raise SelectorError(f"{self.text!r} is not a selector: {problem} (character {self.start + 1})")

    def expect(self, wanted: str) -> NoReturn:
        self.fail(f"expected {wanted}, not {self.token or 'the end'}")

    def require(self, token: str) -> None:
        if self.kind != "symbol" or self.token != token:
            self.expect(token)
        self.advance()

    def accepts(self, token: str) -> bool:
        if self.kind != "symbol" or self.token != token:
            return False
        self.advance()
        return True

    def either(self) -> Selects:
        parts = [self.both()]
        while self.accepts("||"):
            parts.append(self.both())
        return parts[0] if len(parts) == 1 else lambda labels: any(part(labels) for part in parts)

    def both(self) -> Selects:
        parts = [self.operation()]
        while self.accepts("&&"):
            parts.append(self.operation())
        return parts[0] if len(parts) == 1 else lambda labels: all(part(labels) for part in parts)

    def operation(self) -> Selects:
        if self.accepts("!"):
            negated = self.operation()
            return lambda labels: not negated(labels)
        if self.accepts("("):
            inner = self.either()
            self.require(")")
            return inner
        if self.kind == "function":
            function = self.advance()
            label = self.label() if function == "has(" else None
            self.require(")")
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
                        self.require_word(second)
                    return operator
        return self.expect("==, !=, in, not in, contains, starts with or ends with")

    def require_word(self, word: str) -> None:
        if self.kind != "word" or self.token != word:
            self.expect(word)
        self.advance()

    def string(self) -> str:
        if self.kind != "string":
            self.expect("a value in quotes")
        return self.advance()[1:-1]

    def set_of_strings(self) -> frozenset[str]:
        self.require("{")
        values = []
        while self.kind == "string":
            values.append(self.string())
            if not self.accepts(","):
                break
        self.require("}")
        return frozenset(values)

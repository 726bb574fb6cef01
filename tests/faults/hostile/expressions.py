"""Expressions that multiply, nest or repeat as much as 1,000 characters allow, and records that make the most of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

MAX_LENGTH = 1_000


def repeated(step: str, joint: str = " | ", start: str = "", most: int = MAX_LENGTH, times: int = 18) -> str:
    """As many steps as fit, each one level deeper; `times` at most, so that the whole is not too deep to be compiled."""
    text = start or step
    for _ in range(times):
        if len(text) + len(joint) + len(step) <= most:
            text += joint + step
    return text


def nested(opening: str, inner: str, closing: str, depth: int) -> str:
    return opening * depth + inner + closing * depth


def _multiplying() -> Iterator[str]:
    """Lists and texts that grow with each step."""
    for width in (2, 3, 5, 9):
        copies = ",".join("@" * width)
        for step in (f"[{copies}][]", f"[{copies}][*][]", f"[[{copies}][]][]", f"[[{copies}]][][]"):
            yield repeated(step)
        for step in (f"join('',[{copies}])", f"to_string([{copies}])", f"join('',[{copies}]) | reverse(@)"):
            yield repeated(step)
            yield repeated(step, start="name")
            yield repeated(step, start="long")
    for step in (
        "[@,@][] | map(&[@,@], @)[]", "map(&[@,@], [@,@])", "[values({a:@,b:@})][]", "[@,@][] | sort_by(@, &to_string(@))",
        "[keys({a:@,b:@}), @][]", "[@,@][] | reverse(@)", "[@,@][] | [::-1]", "{a:@,b:@}.[a,b][]", "[@,@][] | [*].[@,@][][]",
        "[@,@][?`true`][]", "[@,@][].[@,@][]", "values({a:@,b:@})[]", "[to_array(@),to_array(@)][]", "[@,@][] | [0:]",
        "[merge({a:@},{b:@}).*][][]", "not_null(null,[@,@])[]", "[@,@][] | max_by(@, &length(to_string(@)))",
    ):  # fmt: skip
        yield repeated(step)
        yield repeated(step, start="many")
        yield repeated(step, start="fields", times=9)
        yield repeated(step, start="@", times=MAX_LENGTH)


def _shared() -> Iterator[str]:
    """A value in which one part occurs 2^n times while it takes n places, and what walks all of it."""
    for width in (2, 4, 8):
        copies = ",".join("@" * width)
        grown = repeated(f"[{copies}]", most=800)
        objects = repeated("{" + ",".join(f"k{number}:@" for number in range(width)) + "}", most=800)
        for value in (grown, objects):
            for ending in (
                "to_string(@)", "length(to_string(@))", "[@[0]==@[1]]", "[@==[@[0],@[1]]] | [0]", "contains(@, [`1`])",
                "contains([@], [@])", "sort_by([@,@], &to_string(@))", "to_string([@,@])", "map(&to_string(@), [@,@]) | [0]",
                "[?@==`{}`] | [0]", "@ != [@]", "join('', map(&to_string(@), [@,@,@]))", "*.to_string(@) | [0]",
            ):  # fmt: skip
                yield f"{value} | {ending}"


def _repeating() -> Iterator[str]:
    """Long ways through long lists and long texts."""
    for base in ("many", "fields", "lists"):
        for step in (
            "[*]",
            "[]",
            "[?@]",
            "[::1]",
            "[::-1]",
            "reverse(@)",
            "sort(@)",
            "map(&@, @)",
            "[*].[@][]",
            "[?@==@]",
        ):
            yield repeated(step, start=base)
    alternatives = repeated("a", "||", most=900)
    for base in ("many", "fields", "lists[]"):
        yield f"{base}[*].[{alternatives}] | [0] | [0]"
        yield f"{base}[?{alternatives}] | [0]"
        yield f"map(&({alternatives}), {base}) | [0]"
        yield f"sort_by({base}, &to_string({alternatives})) | [0]"
    for call in (
        "contains(long,'a')", "contains(long,'0123456789')", "reverse(long)=='x'", "to_number(long)", "starts_with(long,long)",
        "long==reverse(long)", "length(reverse(reverse(long)))==`1`", "ends_with(reverse(reverse(long)),long)",
        "contains(many,long)", "contains(fields[].name,reverse(long))", "sum(many)==`1`", "avg(many)==`1`", "max(many)==`1`",
        "to_string(many)=='x'", "to_string(fields)=='x'", "to_string(deep)=='x'", "deep==`1`", "contains(deep,`1`)",
    ):  # fmt: skip
        yield repeated(call, "||")
        yield repeated(f"!{call}", "&&")
        conditions = repeated("to_string(@)==to_string(`1`)||contains(to_string(@),'a')", "||", most=900)
        yield f"many[?{conditions}] | [0]"
    for copies in (4, 40):
        twins = ",".join("{a:long,b:reverse(reverse(long))}" for _ in range(copies // 2))[:900].rpartition("}")[0] + "}"
        for ending in ("[?a==b]", "sort_by(@,&b)", "sort([].a)", "max([].b)", "[*].a<b", "[?starts_with(a,b)]"):
            yield f"[{twins}] | [@,@][] | [@,@][] | {ending} | [0]"


def _literal() -> Iterator[str]:
    """Products of lists that stand in the expression itself."""
    for size in (2, 10, 40, 90):
        numbers = "`" + json.dumps(list(range(size)), separators=(",", ":")) + "`"
        yield repeated(f"[].{numbers}[]", "", start=numbers)
        yield repeated(f"[*].{numbers}[]", "", start=numbers)
        yield repeated(f"map(&{numbers},@)[]", start=numbers)
        yield repeated(f"[].[{numbers},{numbers}][][]", "", start="many")


def _deep() -> Iterator[str]:
    """Nested until a stack would end."""
    for depth in (50, 61, 200, 480):
        yield f"`{nested('[', '1', ']', depth)}`"
        for opening, inner, closing in (
            ("(", "a", ")"), ("[", "@", "]"), ("!", "a", ""), ("{a:", "@", "}"), ("[?", "a", "]"), ("a[?", "a", "]"),
            ("not_null(", "a", ")"), ("to_string(", "a", ")"), ("a.", "a", ""), ("a||", "a", ""), ("&", "a", ""),
            ("map(&", "a", ",@)"), ("[[", "@", "]]"), ("*.", "a", ""), ("a[", "0", "]"), ("a|", "a", ""),
        ):  # fmt: skip
            text = nested(opening, inner, closing, depth)
            if len(text) <= MAX_LENGTH:
                yield text


def _failing() -> Iterator[str]:
    """What a function cannot take, and numbers that are none."""
    yield from (
        "abs('a')", "ceil(to_number('inf'))", "floor(to_number('-inf'))", "ceil(to_number('nan'))", "to_number('1e999')",
        "to_number('nan')", "avg([to_number('1e308'),to_number('1e308')])", "sum(`[]`)", "avg(`[]`)", "nosuch(@)",
        "length(`1`)", 'sort(`[1,"a"]`)', "max_by(many, &name)", "min_by(fields, &@)", "name < many", "name < `1`", "many[::0]",
        "many[9223372036854775808]", "many[-9223372036854775809]", "many[0:18446744073709551616]", "join(`1`, many)",
        "join('', many)", "keys(`1`)", "merge(`1`)", "map(name, many)", "contains(`1`, `1`)", "reverse(`1`)", "to_number(name)",
        '"\\ud800"', "long.long", "number", "to_string(number)", "to_string([number])", "`12345678901234567890123`",
    )  # fmt: skip


def expressions() -> list[str]:
    """Each once, none longer than a route takes."""
    families = (_multiplying(), _shared(), _repeating(), _literal(), _deep(), _failing())
    found = dict.fromkeys(text for family in families for text in family)
    return [text for text in found if len(text) <= MAX_LENGTH]


def data() -> dict[str, dict[str, Any]]:
    """Records of up to a megabyte, each awkward in its own way."""
    deep: Any = 1
    for _ in range(400):
        deep = [deep]
    common = {"name": "Ana", "number": 1.2345678901234568e22, "a": "x", "deep": deep}
    few_fields = [{"name": f"Field {number}", "values": [{"value": number}]} for number in range(20)]
    return {
        "a contact": {**common, "many": [1, 2, 3], "fields": few_fields, "lists": [[1], [2]], "long": "Ana"},
        "long lists": {
            **common,
            "many": list(range(130_000)),
            "fields": [{"name": "x", "a": number} for number in range(10_000)],
            "lists": [[1, 2]] * 30_000,
            "long": "Ana",
        },
        "a long text": {
            **common,
            "many": ["x" * 1_000] * 300,
            "fields": few_fields,
            "lists": [],
            "long": "0" * 900_000,
        },
        "a long foreign text": {**common, "many": [], "fields": few_fields, "lists": [], "long": '🌻"' * 120_000},
    }

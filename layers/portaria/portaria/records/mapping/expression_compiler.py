"""The nodes of an expression, made into Python functions, which search in one value and charge the budget.

Each node writes the statements that find its result, so that a whole expression is one function without calls between its
nodes: interpreting, or one closure for each node, takes two to four times as long. The source that is compiled consists of
this module's own text and of names that it numbers. Nothing of an expression is in it: a field's name or a literal is an
object in the function's globals.

The grammar and the meaning of each node are the library's: https://jmespath.org/specification.html
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from jmespath.visitor import TreeInterpreter

from portaria.records.mapping import expression_functions
from portaria.records.mapping.expression_budget import SHORT_TEXT, Budget, Lacking, Node, TooCostly, cost_of
from portaria.records.mapping.first_values import FirstValue, first_values, match_first_value

Search = Callable[[Any], Any]
Check = Callable[[str, Any], Any]

# Python takes 20 loops inside each other, and 100 levels of indentation. What is nested deeper is a function of its own.
MAX_INDENTATION = 12

_equals = TreeInterpreter.COMPARATOR_FUNC["eq"]
_ORDERINGS = {name: TreeInterpreter.COMPARATOR_FUNC[name] for name in ("lt", "gt", "lte", "gte")}
_MISSING = object()


class _Function:
    """The source of one function, line by line. `found` has what is known in each block, the innermost last."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines = [f"def {name}(value):"]
        self.found: list[dict[tuple[str, str], str]] = [{}]

    @property
    def indentation(self) -> int:
        return len(self.found)

    def write(self, line: str) -> None:
        self.lines.append(f"{' ' * self.indentation}{line}")

    @contextmanager
    def block(self, line: str) -> Iterator[None]:
        self.write(line)
        self.found.append({})
        yield
        self.found.pop()


class _Writer:
    """Writes the functions of one expression and compiles them. A node's method writes the statements that search in the value
    of one name, and returns the name of what they find.
    """

    def __init__(self, budget: Budget, is_partial: bool) -> None:
        self.budget = budget
        self.is_partial = is_partial
        self._globals: dict[str, Any] = {
            "budget": budget,
            "TooCostly": TooCostly,
            "Lacking": Lacking,
            "NUMBERS": (int, float),
            "EXACT": (int, bool),
        }
        self._functions: list[_Function] = []
        self._current_function = _Function("")
        self._names = 0
        # Names whose values are true in Python exactly if JMESPath treats them as true.
        self._conditions: set[str] = set()
        # The texts of the expressions that `first_values` serves.
        self._texts: dict[FirstValue, set[str]] = {}

    def compile(self, node: Node) -> Search:
        return self._compiled(self.function(node))

    def compile_mapping(
        self,
        nodes: Iterable[tuple[str, Node | Search]],
        *,
        check: Check,
        failure: Callable[[str, Exception], Exception],
    ) -> Search:
        """One function for the expressions of all attributes; what several of them contain is searched once.

        The function leaves out attributes whose value is null or an empty text. `check` checks values that are not texts,
        integers or booleans. An exception becomes the `failure` of its attribute.
        """
        made = self._current_function = _Function(self.name("f"))
        self._functions.append(made)
        made.write("attributes = {}")
        with made.block("try:"):
            for attribute, node in nodes:
                name = self.constant(attribute)
                made.write(f"attribute = {name}")
                found = (
                    self.search(node, "value")
                    if isinstance(node, dict)
                    else self.result(f"{self.constant(node)}(value)")
                )
                with made.block(f"if type({found}) is str:"), made.block(f"if {found}:"):
                    made.write(f"attributes[{name}] = {found}")
                with made.block(f"elif {found} is not None:"):
                    checked = f"{self.constant(check)}({name}, {found})"
                    made.write(f"attributes[{name}] = {found} if type({found}) in EXACT else {checked}")
        with made.block("except Exception as error:"):
            made.write(f"raise {self.constant(failure)}(attribute, error) from None")
        made.write("return attributes")
        return self._compiled(made.name)

    def _compiled(self, name: str) -> Search:
        source = "\n".join(line for function in self._functions for line in function.lines)
        exec(compile(source, "<mapping>", "exec"), self._globals)  # noqa: S102 - no text of the expression is in the source
        search: Search = self._globals[name]
        return search

    def function(self, node: Node) -> str:
        """Write a function of its own for a node; its name."""
        outer, self._current_function = self._current_function, _Function(self.name("f"))
        made = self._current_function
        made.write(f"return {self.search(node, 'value')}")
        self._functions.append(made)
        self._current_function = outer
        return made.name

    def search(self, node: Node, value: str) -> str:
        if self._current_function.indentation > MAX_INDENTATION:
            return self.result(f"{self.function(node)}({value})")
        return self.once(repr(node), value, lambda: getattr(self, f"_{node['type']}")(node, value))

    def once(self, what: str, value: str, write: Callable[[], str]) -> str:
        """The name of what was found in a value before, in this block or one around it; otherwise of what `write` finds."""
        key = (what, value)
        for known in self._current_function.found:
            if key in known:
                return known[key]
        found = self._current_function.found[-1][key] = write()
        return found

    def name(self, prefix: str) -> str:
        self._names += 1
        return f"{prefix}{self._names}"

    def constant(self, found: Any) -> str:
        name = self.name("c")
        self._globals[name] = found
        return name

    def write(self, line: str) -> None:
        self._current_function.write(line)

    def block(self, line: str) -> Any:
        return self._current_function.block(line)

    def result(self, expression: str) -> str:
        """Write an assignment to a new name."""
        name = self.name("v")
        self.write(f"{name} = {expression}")
        return name

    def condition(self, expression: str) -> str:
        """As `result`, for an expression that gives a boolean or null."""
        name = self.result(expression)
        self._conditions.add(name)
        return name

    def is_true(self, name: str) -> str:
        """Python's expression for what JMESPath treats as true: 0 is, an empty text, list or object is not."""
        return name if name in self._conditions else f"{name} or type({name}) in NUMBERS"

    def spend(self, steps: str) -> None:
        self.write(f"left = budget.left = budget.left - {steps}")
        with self.block("if left < 0:"):
            self.write("raise TooCostly")


class _Selections(_Writer):
    """Nodes that select parts of a value, or put parts together. A method has its node's name."""

    def _field(self, node: Node, value: str) -> str:
        field = self.constant(node["value"])
        if self.is_partial:
            return self.result(f"{self.constant(_present)}({value}, {field})")
        return self.result(f"{value}.get({field}) if type({value}) is dict else None")

    def _chain(self, node: Node, value: str) -> str:
        """Each child searches in the result of the one before it."""
        for child in node["children"]:
            value = self.search(child, value)
        return value

    _subexpression = _index_expression = _chain

    def _pipe(self, node: Node, value: str) -> str:
        usual = None if self.is_partial else match_first_value(node)
        if not usual:
            return self._chain(node, value)
        wanted, text = usual
        texts = self._texts.setdefault(wanted, set())
        texts.add(text)
        call = f"{self.constant(first_values)}({value}, {self.constant(wanted)}, {self.constant(texts)}, budget)"
        return self.result(f"{self.once(repr(wanted), value, lambda: self.result(call))}.get({self.constant(text)})")

    def _index(self, node: Node, value: str) -> str:
        position = node["value"]
        needed = position + 1 if position >= 0 else -position
        at = self.constant(position)
        return self.result(f"{value}[{at}] if type({value}) is list and len({value}) >= {needed:d} else None")

    def _slice(self, node: Node, value: str) -> str:
        part = self.constant(slice(*node["children"]))
        found = self.result("None")
        with self.block(f"if type({value}) is list:"):
            self.spend(f"len({value})")
            self.write(f"{found} = {value}[{part}]")
        return found

    def _projection(self, node: Node, value: str) -> str:
        base, each = node["children"]
        return self._project(self.search(base, value), "list", "", each, cost_of(each))

    def _filter_projection(self, node: Node, value: str) -> str:
        base, each, condition = node["children"]
        return self._project(
            self.search(base, value), "list", "", each, cost_of(each) + cost_of(condition), condition=condition
        )

    def _value_projection(self, node: Node, value: str) -> str:
        base, each = node["children"]
        return self._project(self.search(base, value), "dict", ".values()", each, cost_of(each))

    def _project(
        self, base: str, kind: str, elements: str, each: Node, cost: int, *, condition: Node | None = None
    ) -> str:
        """What a node finds in each element that meets the condition, without null."""
        found, element = self.result("None"), self.name("e")
        with self.block(f"if type({base}) is {kind}:"):
            if self.is_partial and kind == "dict":
                self.write("raise Lacking")
            self.spend(f"{cost:d} * len({base})")
            self.write(f"{found} = []")
            with self.block(f"for {element} in {base}{elements}:"):
                if condition:
                    with self.block(f"if {self.is_true(self.search(condition, element))}:"):
                        self._append(found, self.search(each, element))
                else:
                    self._append(found, self.search(each, element))
        return found

    def _append(self, found: str, each: str) -> None:
        with self.block(f"if {each} is not None:"):
            self.write(f"{found}.append({each})")

    def _flatten(self, node: Node, value: str) -> str:
        base = self.search(node["children"][0], value)
        found, element = self.result("None"), self.name("e")
        with self.block(f"if type({base}) is list:"):
            self.spend(f"len({base})")
            self.write(f"{found} = []")
            with self.block(f"for {element} in {base}:"):
                with self.block(f"if type({element}) is list:"):
                    self.spend(f"len({element})")
                    self.write(f"{found} += {element}")
                with self.block("else:"):
                    self.write(f"{found}.append({element})")
        return found

    def _multi_select_list(self, node: Node, value: str) -> str:
        found = self.result("None")
        with self.block(f"if {value} is not None:"):
            self.spend(f"{len(node['children']) + 1:d}")
            parts = [self.search(child, value) for child in node["children"]]
            self.write(f"{found} = [{', '.join(parts)}]")
        return found

    def _multi_select_dict(self, node: Node, value: str) -> str:
        found = self.result("None")
        with self.block(f"if {value} is not None:"):
            self.spend(f"{2 * len(node['children']) + 1:d}")
            parts = [
                f"{self.constant(child['value'])}: {self.search(child['children'][0], value)}"
                for child in node["children"]
            ]
            self.write(f"{found} = {{{', '.join(parts)}}}")
        return found

    def _literal(self, node: Node, value: str) -> str:
        return self.constant(node["value"])

    def _current(self, node: Node, value: str) -> str:
        return value

    _identity = _current


class Compiler(_Selections):
    """Makes a function of a node, which charges one budget. Functions for partial records (`is_partial`) raise `Lacking`.

    `_Selections` has the nodes that select; here are comparisons, logic and calls.
    """

    def _comparator(self, node: Node, value: str) -> str:
        name, sides = node["value"], node["children"]
        left, right = (self.search(child, value) for child in sides)
        if name in _ORDERINGS:
            compare = self.constant(_ordered(_ORDERINGS[name], self._look_at))
        elif any(child["type"] == "literal" and _is_short_text(child["value"]) for child in sides):
            return self.condition(f"{left} {'==' if name == 'eq' else '!='} {right}")
        else:
            compare = self.constant(_equal(self._look_at, wanted=name == "eq"))
        return self.condition(f"{compare}({left}, {right})")

    def _or_expression(self, node: Node, value: str) -> str:
        return self._second_if("not ", node, value)

    def _and_expression(self, node: Node, value: str) -> str:
        return self._second_if("", node, value)

    def _second_if(self, negation: str, node: Node, value: str) -> str:
        first, second = node["children"]
        found = self.result(self.search(first, value))
        with self.block(f"if {negation}({self.is_true(found)}):"):
            self.write(f"{found} = {self.search(second, value)}")
        return found

    def _not_expression(self, node: Node, value: str) -> str:
        return self.condition(f"not ({self.is_true(self.search(node['children'][0], value))})")

    def _expref(self, node: Node, value: str) -> str:
        return self.result(f"{self.constant(_Expression)}({self.function(node['children'][0])}, budget)")

    def _function_expression(self, node: Node, value: str) -> str:
        given = [self.search(child, value) for child in node["children"]]
        # A function evaluates an expression argument for each element of its list argument.
        cost = 1 + sum(cost_of(child) for child in node["children"] if child["type"] == "expref")
        call = expression_functions.call_of(node["value"], len(given), self.budget, cost, is_partial=self.is_partial)
        called = f"{self.constant(call)}([{', '.join(given)}])"
        if node["value"] == "to_string" and len(given) == 1:
            # The library makes an encoder for each number.
            return self.result(f"str({given[0]}) if type({given[0]}) is int else {called}")
        if node["value"] == "length" and len(given) == 1:
            return self._length(given[0], called)
        return self.result(called)

    def _length(self, value: str, called: str) -> str:
        """A list's length is found without a call of the library's function, which checks the argument's type."""
        found = self.name("v")
        with self.block(f"if type({value}) is list:"):
            self.write(f"{found} = len({value})")
            self.spend(found)
        with self.block("else:"):
            self.write(f"{found} = {called}")
        return found

    def _look_at(self, value: Any) -> None:
        self.budget.spend_value(value, is_partial=self.is_partial)


class _Expression:
    """An argument like `&name`. The library's functions recognize it by the name of its class and call `visit`."""

    def __init__(self, search: Search, budget: Budget) -> None:
        self.expression = search
        self.budget = budget

    def visit(self, search: Search, value: Any) -> Any:
        found = search(value)
        if type(found) is str:
            self.budget.spend_text(len(found))
        return found


def _is_short_text(value: Any) -> bool:
    """A text that is compared at no charge."""
    return type(value) is str and len(value) < SHORT_TEXT


# The types that the library compares. A number with a text raises `TypeError`.
_COMPARABLE = (int, float, str)


def _present(value: Any, field: str) -> Any:
    """A field of a partial record's object. Raises `Lacking` if the object does not have it."""
    if type(value) is not dict:
        return None
    if (found := value.get(field, _MISSING)) is _MISSING:
        raise Lacking
    return found


def _equal(look_at: Callable[[Any], None], *, wanted: bool) -> Callable[[Any, Any], bool]:
    def equal(one: Any, other: Any) -> bool:
        if type(one) is str and (type(other) is not str or len(one) < SHORT_TEXT):
            return (one == other) is wanted
        if type(one) is type(other) and type(one) in (str, list, dict):
            look_at(one)
        return bool(_equals(one, other)) is wanted

    return equal


def _ordered(compare: Callable[[Any, Any], Any], look_at: Callable[[Any], None]) -> Callable[[Any, Any], Any]:
    def ordered(one: Any, other: Any) -> Any:
        if type(one) not in _COMPARABLE or type(other) not in _COMPARABLE:
            return None
        if type(one) is str:
            look_at(one)
        return compare(one, other)

    return ordered

"""SVG logos: what is stored is written anew from the elements and attributes listed here.

Anything that could run, load, link or animate is not on the lists, so it is refused: scripts, event handlers, `foreignObject`,
`image`, `use`, `a`, animations, filters, fonts, references to anything but an id of the same file, and document types, whose
entities can be expanded. Comments, metadata and what belongs to other namespaces (those of drawing programs) are left out.

https://www.w3.org/TR/SVG2/ and https://www.w3.org/TR/css-syntax-3/
"""

from __future__ import annotations

import re
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

from portaria.connections.branding.logo_rules import UnusableLogo, check_size

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
MAX_ELEMENTS, MAX_DEPTH = 2_000, 40


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ELEMENTS = _words(
    "svg g defs title desc path rect circle ellipse line polyline polygon clipPath mask linearGradient radialGradient stop "
    "style"
)
_LEFT_OUT = frozenset(("metadata",))
_PRESENTATION = _words(
    "clip-path clip-rule color color-interpolation display fill fill-opacity fill-rule isolation mask mask-type mix-blend-mode "
    "opacity overflow paint-order shape-rendering stop-color stop-opacity stroke stroke-dasharray stroke-dashoffset "
    "stroke-linecap stroke-linejoin stroke-miterlimit stroke-opacity stroke-width vector-effect visibility"
)
_ATTRIBUTES = _PRESENTATION | _words(
    "id class style version baseProfile viewBox preserveAspectRatio width height x y x1 y1 x2 y2 cx cy r rx ry fx fy fr d "
    "points pathLength transform gradientTransform gradientUnits spreadMethod offset clipPathUnits "
    "maskUnits maskContentUnits href"
)
# Attributes and style properties that mean nothing in a picture that is shown by itself and has no text.
_IGNORED = _words("role aria-label aria-labelledby aria-hidden focusable enable-background tabindex lang data-name")
_IGNORED_PROPERTIES = (
    "-inkscape-",
    "-webkit-",
    "enable-background",
    "font",
    "letter-",
    "line-height",
    "text-",
    "white-space",
    "word-",
)
# One value: no quotes, brackets of markup, backslashes (CSS escapes) or colons (URLs).
_VALUE = re.compile(r"[\w\s.,#%()+*/!-]*", re.ASCII)
_REFERENCE = re.compile(r"url\(\s*['\"]?(#[\w-]+)['\"]?\s*\)", re.ASCII)
_ID = re.compile(r"#[\w-]+", re.ASCII)
_LENGTH = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)(?:px)?", re.ASCII)
_RULE = re.compile(r"([\w\s.,#-]+)\{([^{}]*)\}\s*", re.ASCII)


def clean(content: bytes) -> tuple[bytes, float, float]:
    """The picture as listed elements alone, its width and its height. Raises `UnusableLogo`."""
    writer = _Writer()
    parser = expat.ParserCreate(encoding="UTF-8", namespace_separator=" ")
    parser.buffer_text = True
    parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
    parser.StartDoctypeDeclHandler = _refuse_document_type
    parser.EntityDeclHandler = _refuse_document_type
    parser.ProcessingInstructionHandler = _refuse_instruction
    parser.StartElementHandler = writer.start
    parser.EndElementHandler = writer.end
    parser.CharacterDataHandler = writer.text
    try:
        parser.Parse(content.decode("utf-8-sig"), True)
    except UnicodeDecodeError:
        raise UnusableLogo("must be SVG in UTF-8") from None
    except expat.ExpatError as error:
        raise UnusableLogo(f"is not well-formed XML: line {error.lineno}, {expat.ErrorString(error.code)}") from None
    width, height = writer.size()
    check_size(width, height)
    return "".join(writer.parts).encode(), width, height


class _Writer:
    """Writes what the lists allow."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self._open: list[str] = []
        self._left_out = 0
        self._count = 0
        self._style: list[str] = []
        self._root: dict[str, str] = {}

    def start(self, name: str, given: dict[str, str]) -> None:
        namespace, _, element = name.rpartition(" ")
        if not self._open and (namespace, element) != (SVG, "svg"):
            raise UnusableLogo(f"must be an svg element with the namespace {SVG}")
        self._count += 1
        if self._count > MAX_ELEMENTS or len(self._open) >= MAX_DEPTH:
            raise UnusableLogo(f"may have {MAX_ELEMENTS:,} elements, {MAX_DEPTH} inside one another")
        if self._left_out or namespace not in (SVG, "") or element in _LEFT_OUT:
            self._left_out += 1
            return
        if element not in _ELEMENTS or namespace != SVG or (element == "svg" and self._open):
            raise UnusableLogo(f"has the element {_shown(element)}, which a logo may not have")
        attributes = _attributes(element, given)
        if not self._open:
            self._root = attributes
            attributes = {"xmlns": SVG, **attributes}
        self._open.append(element)
        written = "".join(f" {key}={quoteattr(value)}" for key, value in attributes.items())
        self.parts.append(f"<{element}{written}>")

    def end(self, name: str) -> None:
        if self._left_out:
            self._left_out -= 1
            return
        element = self._open.pop()
        if element == "style":
            self.parts.append(escape(_style_sheet("".join(self._style))))
            self._style = []
        self.parts.append(f"</{element}>")

    def text(self, data: str) -> None:
        if self._left_out or not self._open:
            return
        if self._open[-1] == "style":
            self._style.append(data)
        elif self._open[-1] in ("title", "desc"):
            self.parts.append(escape(data))
        elif data.strip():
            raise UnusableLogo("has text outside an element for text: convert text to paths")

    def size(self) -> tuple[float, float]:
        """The width and height, of the view box where the element has none."""
        box = re.split(r"[\s,]+", self._root.get("viewBox", "").strip())
        sides = []
        for name, index in (("width", 2), ("height", 3)):
            found = _LENGTH.fullmatch(self._root.get(name, "")) or (
                _LENGTH.fullmatch(box[index]) if len(box) == 4 else None
            )
            if found is None:
                raise UnusableLogo("needs a width and a height in pixels, or a viewBox")
            sides.append(float(found[1]))
        return sides[0], sides[1]


def _attributes(element: str, given: dict[str, str]) -> dict[str, str]:
    kept: dict[str, str] = {}
    for name, value in given.items():
        namespace, _, attribute = name.rpartition(" ")
        if namespace == XLINK:
            attribute = attribute if attribute == "href" else "xlink:" + attribute
        elif namespace or attribute in _IGNORED:
            continue
        if attribute not in _ATTRIBUTES:
            raise UnusableLogo(f"has the attribute {_shown(attribute)} of {element}, which a logo may not have")
        if attribute == "style":
            kept[attribute] = _declarations(value)
        elif attribute == "href":
            if element not in ("linearGradient", "radialGradient") or not _ID.fullmatch(value):
                raise UnusableLogo(f"has a reference in {element} to something else than a gradient of the same file")
            kept[attribute] = value
        else:
            kept[attribute] = _value(value, attribute)
    return kept


def _style_sheet(text: str) -> str:
    """Rules with simple selectors. Raises `UnusableLogo` for everything else, such as @import."""
    text = _without_comments(text).strip()
    rules, place = [], 0
    while place < len(text):
        found = _RULE.match(text, place)
        if not found:
            raise UnusableLogo("has a style element with more than rules such as .a{fill:#123456}")
        rules.append(f"{found[1].strip()}{{{_declarations(found[2])}}}")
        place = found.end()
    return "".join(rules)


def _declarations(text: str) -> str:
    kept = []
    for declaration in _without_comments(text).split(";"):
        if not declaration.strip():
            continue
        name, colon, value = declaration.partition(":")
        name = name.strip().lower()
        if not colon or name.startswith(_IGNORED_PROPERTIES):
            continue
        if name not in _PRESENTATION:
            raise UnusableLogo(f"has the style property {_shown(name)}, which a logo may not have")
        kept.append(f"{name}:{_value(value.strip(), name)}")
    return ";".join(kept)


def _without_comments(text: str) -> str:
    kept, *comments = text.split("/*")
    for comment in comments:
        _, end, rest = comment.partition("*/")
        if not end:
            raise UnusableLogo("has a comment in its style that is not closed")
        kept += rest
    return kept


def _value(value: str, name: str) -> str:
    """A value that can only be numbers, words, colours and references to an id of the same file."""
    without = _REFERENCE.sub("", value)
    if not _VALUE.fullmatch(without) or re.search(
        r"(?:url|image|expression|src|attr|var|env)\s*\(", without, re.IGNORECASE
    ):
        raise UnusableLogo(f"has a value of {_shown(name)} that a logo may not have")
    return _REFERENCE.sub(r"url(\1)", value)


def _shown(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z][A-Za-z0-9:-]{0,30}", name) else "(a name of other characters)"


def _refuse_document_type(*_: object) -> None:
    raise UnusableLogo("may not have a document type (<!DOCTYPE …>): remove it")


def _refuse_instruction(*_: object) -> None:
    raise UnusableLogo("may not have a processing instruction (<?…?>)")

"""How the body of a response is decoded: by its byte order mark, by the declared charset, else as UTF-8."""

from __future__ import annotations

import pytest

from portaria.core.http.messages import Response

TEXT = '{"account_name": "João €"}'


def response(body: bytes, content_type: str = "application/json") -> Response:
    return Response(200, {"content-type": content_type}, body)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", TEXT.encode()),
        ("application/json;charset=UTF-8", TEXT.encode()),
        ("application/json; charset=utf8", TEXT.encode()),
        ('application/json; CharSet="utf-8"', TEXT.encode()),
        ("application/json; charset='utf-8'", TEXT.encode()),
        ("application/json; charset=iso-8859-15", TEXT.encode("iso-8859-15")),
        ("application/json; profile=x; charset=windows-1252", TEXT.encode("cp1252")),
        ("application/json; charset=utf-16le", TEXT.encode("utf-16-le")),
        # A byte order mark, declared or not, whatever else is declared.
        ("application/json", b"\xef\xbb\xbf" + TEXT.encode()),
        ("application/json; charset=iso-8859-1", b"\xef\xbb\xbf" + TEXT.encode()),
        ("application/json", TEXT.encode("utf-16")),
        ("application/json; charset=utf-16", TEXT.encode("utf-16")),
        ("application/json; charset=utf-8", b"\xfe\xff" + TEXT.encode("utf-16-be")),
        ("application/json", TEXT.encode("utf-32")),
        ("application/json", b"\x00\x00\xfe\xff" + TEXT.encode("utf-32-be")),
        # A wrong charset, or an unknown one.
        ("application/json; charset=ascii", TEXT.encode()),
        ("application/json; charset=unknown-8bit", TEXT.encode()),
        ("application/json; charset=", TEXT.encode()),
        ("application/json; charset", TEXT.encode()),
        ("application/json; charset=hex", TEXT.encode()),
        ("application/json; charset=rot13", TEXT.encode()),
        ("application/json; charset=undefined", TEXT.encode()),
        ("application/json; charset=utf\x00-8", TEXT.encode()),
        ("", TEXT.encode()),
    ],
)
def test_response_text_is_decoded_by_mark_then_charset_then_utf_8(content_type: str, body: bytes) -> None:
    assert response(body, content_type).text() == TEXT
    assert response(body, content_type).json() == {"account_name": "João €"}


@pytest.mark.parametrize("charset", ["utf-7", "UTF7", "unicode_escape", "raw_unicode_escape", "idna", "punycode"])
def test_response_text_charset_that_redefines_ascii_is_ignored(charset: str) -> None:
    body = rb'{"a": "+AGE- \u0061"}'
    assert response(body, f"application/json; charset={charset}").text() == body.decode()


def test_response_text_undeclared_latin_1_raises_decode_error() -> None:
    with pytest.raises(UnicodeDecodeError):
        response("João".encode("latin-1")).text()


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"\xef\xbb\xbf", b"\xff\xfea"])
def test_response_json_unreadable_raises_value_error(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the type is the contract
        response(body).json()


def test_response_json_declared_latin_1_is_decoded() -> None:
    body = '{"access_token":"a-2","refresh_token":"r-2","account_name":"João"}'.encode("latin-1")
    assert response(body, "application/json;charset=ISO-8859-1").json()["account_name"] == "João"

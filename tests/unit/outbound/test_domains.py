"""The rules for a connection's allowed domain and for the header of its API key, with valid and invalid examples."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portaria.core.errors import Rejected
from portaria.core.http.messages import Request
from portaria.outbound import domain_rules, http_client
from tests.fakes.paths import ROOT

LABEL_63 = "a" * 63
# 128 characters: 63 + 1 + 52 + 1 + 11
NAME_128 = f"{LABEL_63}.{'b' * 52}.example.com"

ACCEPTED = [
    "example.com",
    "api.example.com",
    "a.b.c.d.e.example.com",
    "api.exemplo.com.br",
    "services.leadconnectorhq.com",
    "mkto-ingestion-api.adobe.io",
    "123-abc-456.mktorest.com",
    "4chan.org",
    "1.example.com",
    "1.2.3.4.example.com",
    "0x7f.example.com",
    "a-b.example.com",
    "a--b.example.com",
    "r3---sn-abc.googlevideo.com",
    "x.io",
    "g.co",
    "example.app",
    "example.museum",
    "shop.myshopify.com",
    "me.github.io",
    "a.b.github.io",
    "app.herokuapp.com",
    "my-bucket.s3.amazonaws.com",
    "abc123.execute-api.us-east-1.amazonaws.com",
    "me.blogspot.com",
    "www.ck",
    "city.kawasaki.jp",
    "a.b.kawasaki.jp",
    "xn--e1afmkfd.xn--p1ai",
    "xn--bcher-kva.example.com",
    "xn--fiqs8s.com",
    "com.example.com",
    "com.com",
    "amazonaws.com",
    NAME_128,
    f"{LABEL_63}.example.com",
    "*.example.com",
    "*.api.example.com",
    "*.example.co.uk",
    "*.exemplo.com.br",
    "*.shop.myshopify.com",
    "*.me.github.io",
    "*.www.ck",
    "*.my-bucket.s3.amazonaws.com",
    "*.mktorest.com",
    "*.kommo.com",
    "*.leadconnectorhq.com",
    "*.xn--bcher-kva.example.com",
    f"*.{NAME_128[2:]}",
]

CASES_LOWERED = {
    "API.Example.COM": "api.example.com",
    "*.EXAMPLE.com": "*.example.com",
    "XN--BCHER-KVA.example.com": "xn--bcher-kva.example.com",
}

REFUSED = {
    "too long": [f"c{NAME_128}", f"*.{NAME_128}", "a." * 64 + "example.com", "x" * 10_000],
    "a label too long": [f"{LABEL_63}a.example.com", f"api.{LABEL_63}a.com", f"*.{LABEL_63}a.com"],
    "public suffixes with a wildcard": [
        "*.com", "*.com.au", "*.myshopify.com", "*.co.uk", "*.com.br", "*.github.io", "*.herokuapp.com", "*.blogspot.com",
        "*.s3.amazonaws.com", "*.kawasaki.jp", "*.a.kawasaki.jp", "*.ck", "*.foo.ck", "*.xn--p1ai", "*.net", "*.io",
        "*.cloudfront.net", "*.azurewebsites.net", "*.COM", "*.MyShopify.com", "*.execute-api.us-east-1.amazonaws.com",
    ],
    "wildcards above a public suffix": [
        "*.amazonaws.com", "*.us-east-1.amazonaws.com", "*.appspot.com", "*.compute.estate",
        "*.adobeaemcloud.com", "*.AmazonAWS.com", "*.fastly.net", "*.kawasaki.jp", "*.sch.uk",
    ],
    "public suffixes without one": [
        "com", "com.au", "myshopify.com", "github.io", "co.uk", "herokuapp.com", "s3.amazonaws.com", "foo.ck", "xn--p1ai",
    ],
    "names under no known top-level domain": [
        "localhost", "intranet", "host.local", "service.internal", "api.example", "a.invalid", "printer.lan", "x.onion1",
        "metadata.google.internal", "example.con", "*.localhost", "*.internal", "ip-10-0-0-1.ec2.internal", "wpad", "x.corp",
    ],
    "wildcards elsewhere": [
        "*", "*.", "**.example.com", "*.*.example.com", "exam*.com", "my-*.example.com", "api.*.example.com", "api.example.*",
        "*example.com", "a*", "example.com*", "*.*", "*com",
    ],
    "IPv4 addresses": [
        "127.0.0.1", "10.0.0.1", "169.254.169.254", "8.8.8.8", "255.255.255.255", "0.0.0.0", "127.1", "10.1", "127.0.1",
        "2130706433", "0", "0x7f000001", "0x7f.0.0.1", "0x7f.1", "0X7F.0.0.1", "017700000001", "0177.0.0.1", "0177.1",
        "127.0.0.0x1", "00000177.0.0.01", "1.1.1.1.1", "256.256.256.256", "*.127.0.0.1", "*.1", "0x", "1.2.3.4.5.0x",
        "999999999999999999999",
    ],
    "IPv6 addresses": [
        "::1", "[::1]", "[::ffff:127.0.0.1]", "fe80::1", "2001:db8::1", "[2001:db8::1]:443", "[fe80::1%eth0]", "*.[::1]",
    ],
    "dots": [
        "example.com.", ".example.com", "..example.com", "api..example.com", ".", "..", "*.example.com.", "*..example.com",
        "com.", "127.0.0.1.",
    ],
    "more than a host": [
        "https://example.com", "http://example.com", "ftps://example.com", "//example.com", "example.com/", "example.com/path",
        "example.com?x=1", "example.com#f", "example.com:443", "example.com:8443", "example.com:", "user@example.com",
        "user:pass@example.com", "@example.com", "example.com\\", "\\\\example.com", "https:example.com", "javascript:alert(1)",
        "example.com,example.org", "example.com;", "example.com%2f", "%65xample.com", "example.com&", "(example.com)",
    ],
    "white space and controls": [
        "", " ", " example.com", "example.com ", "exam ple.com", "example.com\n", "\texample.com", "example\x00.com",
        "example.com\r\nX: y", "example.com\x7f", "example\x0b.com",
    ],
    "hyphens and underscores": [
        "-example.com", "example-.com", "api.-example.com", "a_b.example.com", "_dmarc.example.com", "example.com-",
        "-.com", "*.-a.com",
    ],
    "Unicode": [
        "bücher.example.com", "exämple.com", "例え.jp", "пример.рф", "ｅxample.com", "example。com", "example．com",
        "１２７.0.0.1", "ex\u00adample.com", "example.com\u200b", "\u212aelvin.com", "ⓔxample.com",
        "*.bücher.example.com", "à", "١٢٧.0.0.1",
        "example.com\u2028", "ß.example.com", "a\u0301.example.com", "💩.example.com", "\ud800.com",
    ],
    "punycode that does not decode": [
        "xn--.example.com", "xn--a.example.com", "xn--99999999.example.com", "xn--example.com", "api.xn--zzzzzzzzz.com",
        "xn--ls8h.la", "xn---.example.com", "xn--a-ecp.ru.xn--0",
    ],
}  # fmt: skip
REFUSED_CASES = [(rule, text) for rule, texts in REFUSED.items() for text in texts]


def refusal(text: str) -> Rejected:
    with pytest.raises(Rejected) as refused:
        domain_rules.check_allowed_domain(text)
    assert (refused.value.reason, refused.value.field) == ("bad_allowed_domain", "allowed_domain")
    assert refused.value.detail.startswith("allowed_domain ")
    return refused.value


class TestAllowedDomains:
    def test_allowed_domain_corpus_has_at_least_120_cases(self) -> None:
        assert len(set(ACCEPTED)) + len({text for _, text in REFUSED_CASES}) >= 120
        assert len(NAME_128) == 128

    @pytest.mark.parametrize("text", ACCEPTED, ids=lambda text: text[:50])
    def test_check_allowed_domain_valid_name_is_returned_unchanged(self, text: str) -> None:
        assert domain_rules.check_allowed_domain(text) == text

    @pytest.mark.parametrize("text", CASES_LOWERED)
    def test_check_allowed_domain_upper_case_is_lowered(self, text: str) -> None:
        assert domain_rules.check_allowed_domain(text) == CASES_LOWERED[text]

    @pytest.mark.parametrize(("rule", "text"), REFUSED_CASES, ids=lambda value: repr(value)[:40])
    def test_check_allowed_domain_invalid_name_is_refused(self, rule: str, text: str) -> None:
        assert refusal(text)

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            (f"c{NAME_128}", "128 characters; this has 129"),
            (f"{LABEL_63}a.example.com", "63 characters between two dots; this has 64"),
            ("*.com.au", "this is a public suffix"),
            ("*.amazonaws.com", "above a public suffix: *.amazonaws.com covers"),
            ("my-*.example.com", "one wildcard (*), as its first label"),
            ("0x7f.1", "not an IP address"),
            ("[::1]", "not an IP address"),
            ("example.com.", "without a dot at its beginning or end"),
            ("https://example.com", "without https://"),
            ("example.com:8443", "without a port"),
            ("example.com/x", "without a path"),
            ("me@example.com", "without a user"),
            ("exam ple.com", "without spaces"),
            ("a_b.example.com", "underscore"),
            ("-a.example.com", "hyphen"),
            ("bücher.example.com", "in punycode: xn--bcher-kva.example.com"),
            ("*.BÜCHER.example.com", "in punycode: *.xn--bcher-kva.example.com"),
            ("example。com", "in punycode: example.com"),
            ("xn--a.example.com", "not valid punycode"),
        ],
    )
    def test_check_allowed_domain_refusal_explains_the_rule(self, text: str, words: str) -> None:
        assert words in refusal(text).detail

    @pytest.mark.parametrize(
        "text", ["１２７.0.0.1", "例え.jp/x", "рф", "*.рф", "пример.invalid", "\ud800.com", "é" * 100]
    )
    def test_check_allowed_domain_refusal_does_not_advise_unusable_punycode(self, text: str) -> None:
        assert "punycode" not in refusal(text).detail

    @pytest.mark.parametrize(
        "text", ["canary-secret-5f2c", "pit-canary-0000", "canary secret", "Bearer canary", "canary/+=="]
    )
    def test_check_allowed_domain_refusal_does_not_repeat_a_secret(self, text: str) -> None:
        assert "canary" not in str(refusal(text))

    @pytest.mark.parametrize("text", [*ACCEPTED, *CASES_LOWERED.values()], ids=lambda text: text[:50])
    def test_check_allowed_domain_accepted_name_is_allowed_by_http_client(self, text: str) -> None:
        bare = text.removeprefix("*.")
        http_client.check(Request("GET", f"https://{bare}/"), text)
        if text != bare:
            http_client.check(Request("GET", f"https://below.{bare[:100]}.com/"), f"*.{bare[:100]}.com")

    @given(st.text(alphabet=st.sampled_from("ab1-._*xn:@/[]%é。 \n"), max_size=40) | st.text(max_size=30))
    def test_check_allowed_domain_arbitrary_text_is_refused_or_a_host_name(self, text: str) -> None:
        try:
            taken = domain_rules.check_allowed_domain(text)
        except Rejected:
            return
        assert re.fullmatch(r"(\*\.)?([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z0-9-]*[a-z][a-z0-9-]*", taken)

    def test_check_allowed_domain_loads_public_suffix_list_on_first_use(self) -> None:
        code = (
            "import sys, portaria.api.resources.connections.connections\n"
            "from portaria.outbound import domain_rules\n"
            "assert 'publicsuffixlist' not in sys.modules\n"
            "domain_rules.check_allowed_domain('example.com')\n"
            "assert 'publicsuffixlist' in sys.modules\n"
        )
        environment = {"PYTHONPATH": str(ROOT / "layers" / "portaria"), "AWS_REGION": "us-east-1"}
        subprocess.run([sys.executable, "-c", code], check=True, env=environment)


SEED_NAMES = [
    "accept", "accept-charset", "accept-encoding", "accept-language", "cache-control", "connection",
    "content-md5", "cookie", "date", "expect", "from", "host",
    "if-match", "if-modified-since", "if-none-match", "if-range", "if-unmodified-since", "max-forwards",
    "pragma", "proxy-authenticate", "proxy-authorization", "range", "server", "referer",
    "te", "trailer", "transfer-encoding", "upgrade", "user-agent", "via",
    "warning", "www-authenticate",
]  # fmt: skip
SEED_PREFIXES = ("x-amz-", "x-amzn-", "x-forwarded-", "x-zis-")


# Headers in which proxies name the client, and names that a server may read as a forbidden one.
DISGUISED = [
    "X_Forwarded_For", "x_forwarded_host", "X_Amz_Date", "X-Amz_Date", "Transfer_Encoding", "Content_Length", "Host",
    "Proxy_Authorization",
    "X-Real-IP", "X_Real_IP", "True-Client-IP", "CF-Connecting-IP", "X-Client-IP", "X-Cluster-Client-IP", "Client-IP",
    "X-Originating-IP", "X-Remote-IP", "X-Remote-Addr", "Fastly-Client-IP", "X-Forwarded", "If_Range",
]  # fmt: skip


def header_refusal(text: str) -> Rejected:
    with pytest.raises(Rejected) as refused:
        domain_rules.check_header_name(text)
    assert (refused.value.reason, refused.value.field) == ("bad_header_name", "fields.header_name")
    return refused.value


class TestHeaderNames:
    @pytest.mark.parametrize(
        "text",
        ["X-Api-Key", "x_api_key", "Authorization", "a", "_", "apikey", "X-Auth-Token", "a" * 128, "acceptance", "x-amzon",
         "hosts", "x-forwarde", "Content-Type", "x-zi"],
        ids=lambda text: text[:30],
    )  # fmt: skip
    def test_check_header_name_valid_name_is_returned_unchanged(self, text: str) -> None:
        assert domain_rules.check_header_name(text) == text
        http_client.check(Request("GET", "https://example.com/", {text: "value"}), "example.com")

    @pytest.mark.parametrize("name", SEED_NAMES)
    @pytest.mark.parametrize("write", [str.lower, str.upper, str.title], ids=["lower", "upper", "title"])
    def test_check_header_name_reserved_name_in_any_case_is_refused(self, name: str, write: Any) -> None:
        assert name in header_refusal(write(name)).detail

    @pytest.mark.parametrize("prefix", SEED_PREFIXES)
    def test_check_header_name_reserved_prefix_is_refused(self, prefix: str) -> None:
        for name in (prefix, f"{prefix}a", f"{prefix}key".upper(), prefix + "a" * (128 - len(prefix))):
            assert "begin with" in header_refusal(name).detail

    @pytest.mark.parametrize("name", DISGUISED)
    def test_check_header_name_disguised_reserved_name_is_refused(self, name: str) -> None:
        assert "must not" in header_refusal(name).detail

    @pytest.mark.parametrize("text", ["X-N8N-API-KEY", "x2", "X-Auth-2FA_3"])
    def test_check_header_name_digits_are_allowed_only_with_option(self, text: str) -> None:
        assert "allow_digits_in_header_name to yes" in header_refusal(text).detail
        assert domain_rules.check_header_name(text, with_digits=True) == text

    @pytest.mark.parametrize("text", ["", "123", "-1", "x.2", "X-Amz-2", "x-forwarded-2", "١x", "x 2"])
    def test_check_header_name_digits_option_keeps_other_rules(self, text: str) -> None:
        with pytest.raises(Rejected, match="bad_header_name"):
            domain_rules.check_header_name(text, with_digits=True)

    @pytest.mark.parametrize("name", sorted(http_client.FORBIDDEN_HEADERS))
    def test_check_header_name_forbidden_header_is_refused(self, name: str) -> None:
        header_refusal(name)

    @pytest.mark.parametrize(
        "text",
        ["", " ", "X Api", "X-Key2", "chave-é", "X-Key:", "X-Key\n", "x\r\ny", "a" * 129, "x.y", "x/y", "\ud800", "Ｘ-Key",
         "canary2"],
        ids=lambda text: repr(text)[:30],
    )  # fmt: skip
    def test_check_header_name_invalid_characters_or_length_are_refused(self, text: str) -> None:
        refused = header_refusal(text)
        assert "canary" not in refused.detail
        if len(text) > 128:
            assert "128 characters; this has 129" in refused.detail

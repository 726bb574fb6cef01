"""Configuration files: entries to combine, and invalid files with the places of their problems.

In an invalid file `«1»` marks the place at which problem 1 must be reported; `unmarked` removes the marks.
"""

from __future__ import annotations

import re
from typing import NamedTuple

TOKEN_URL = "https://123-abc-456.mktorest.com/identity/oauth/token"
CANARY = "canary/+=secret.5f2c"
SECRETS = {
    "SECRET": CANARY,
    "SPACED": f"{CANARY} with spaces",
    "MUNCHKIN": "123-ABC-456",
    "EMPTY": "",
    "PLAIN": "canary",
}

KOMMO = "- {platform: kommo, name: acme, client_id: a, client_secret: {env: SECRET}}"
SHOP = (
    "- {platform: oauth2, name: shop, client_id: a, client_secret: {env: SECRET}, api_domains: [api.example.com], "
    "authorize_url: https://login.example.com/a, token_url: https://login.example.com/token}"
)
MARKETO = (
    "- {name: marketo-main, platform: marketo, fields: {munchkin_id: {env: MUNCHKIN}}, "
    "credentials: {client_id: a, client_secret: {env: SECRET}}}"
)
ERP = (
    "- {name: erp, platform: http, kind: api_key, allowed_domain: api.example.com, fields: {header_name: X-Key}, "
    "credentials: {key: {env: SECRET}}}"
)
QUOTED = "'client:kommo/acme'"
ROUTE = f"name: one, source: {QUOTED}, object: contacts, destination: marketo-main"


def clients(*entries: str) -> str:
    return "\n".join(["clients:", *(f"  {entry}" for entry in entries)]) + "\n"


def connections(*entries: str) -> str:
    return "\n".join(["connections:", *(f"  {entry}" for entry in entries)]) + "\n"


def routes(*entries: str) -> str:
    """Routes and the entries that they need."""
    return clients(KOMMO) + connections(MARKETO) + "\n".join(["routes:", *(f"  - {entry}" for entry in entries)]) + "\n"


class Wrong(NamedTuple):
    """An invalid file and a word of each problem, in the order of the marks."""

    text: str
    words: tuple[str, ...]


def one(text: str, words: str) -> Wrong:
    return Wrong(text, (words,))


WRONG = {
    # Not YAML
    "yaml_indentation": one("clients:\n  - platform: kommo\n    «1»- name: acme\n", "block that begins at line 2"),
    "yaml_question_mark": one("clients:\n  - platform: kommo\n «1»? name: acme\n", "check its indentation"),
    "yaml_dedented": one("clients:\n  - platform: kommo\n   «1»name: acme\n", "block that begins at line 2"),
    "yaml_second_colon": one("clients:\n  - platform: kommo«1»: x\n", "put a value that contains ': ' in quotes"),
    "yaml_tab": one("clients:\n«1»\t- platform: kommo\n", "indent with spaces"),
    "yaml_at_sign": one("clients: «1»@x\n", "put the value in quotes"),
    "yaml_open_list": one("routes: [a,\n  b\nclients«1»: []\n", "'[' at line 1 is not closed"),
    "yaml_open_object": one("routes: [{a: b\n«1»", "'{' at line 1 is not closed"),
    "yaml_open_quote": one('routes: "abc\n  d\n«1»', "quotation mark at line 1 is not closed"),
    "yaml_escape": one('routes: "a\\«1»d"\n', "use single quotes"),
    "yaml_undefined_alias": one("routes: «1»*x\n", "in quotes"),
    "yaml_two_documents": one("routes: []\n«1»---\nroutes: []\n", "one document"),
    "yaml_control_character": one("routes: «1»\x07[]\n", "cannot be printed"),
    "yaml_missing_value": one("routes: «1»}\n", "a value is missing"),
    "yaml_nested_deeply": one("«1»routes: " + "[" * 1000, "nested too deeply"),
    "yaml_tag": one("routes: «1»!!python/object/apply:os.getcwd []\n", "a tag (!…) is not allowed"),
    "yaml_tag_of_a_value": one(clients(KOMMO.replace("name: acme", "name: «1»!secret acme")), "a tag (!…)"),
    "yaml_recursion": one(routes(f"«1»&a {{{ROUTE}, <<: *a}}"), "refers to itself"),
    # The structure of the file
    "file_empty": one("«1»", "one or more of the sections clients, connections, routes"),
    "file_list": one("«1»- a\n", "one or more of the sections"),
    "section_misspelled": one("«1»conections: []\n", "did you mean connections?"),
    "section_unknown": one("«1»contacts: []\n", "contacts is not a section"),
    "section_object": one("clients: «1»{platform: kommo}\n", "clients must be a list"),
    "entry_text": one("clients: [«1»kommo]\n", "an entry of clients must be an object"),
    "section_twice": one("routes: []\n«1»routes: []\n", "the first is in line 1"),
    "field_twice": one(clients(KOMMO.replace("client_id: a", "client_id: a, «1»client_id: b")), "twice"),
    "client_twice": one(clients(KOMMO, KOMMO.replace("name: acme", "name: «1»acme")), "kommo/acme stands in clients twice"),
    "route_twice": one(
        routes(f"{{{ROUTE}}}", f"{{{ROUTE.replace('name: one', 'name: «1»one')}}}"), "one stands in routes twice"
    ),
    # Variables and files
    "variable_not_set": one(clients(KOMMO.replace("{env: SECRET}", "«1»{env: NONE}")), "NONE is not set"),
    "variable_empty": one(clients(KOMMO.replace("{env: SECRET}", "«1»{env: EMPTY}")), "EMPTY is empty"),
    "variable_without_name": one(clients(KOMMO.replace("{env: SECRET}", "«1»{env: }")), "must name one environment"),
    "file_not_there": one(clients(KOMMO.replace("{env: SECRET}", "«1»{file: none}")), "No such file"),
    "variable_makes_field_wrong": one(
        clients(KOMMO.replace("{env: SECRET}", "«1»{env: SPACED}")), "read from the environment variable SPACED"
    ),
    "variable_makes_nested_field_wrong": one(
        connections(MARKETO.replace("{env: MUNCHKIN}", "«1»{env: SPACED}")), "munchkin_id must match"
    ),
    "variable_in_a_route": one(
        routes(f"{{{ROUTE.replace('marketo-main', '«1»{env: MUNCHKIN}')}}}"), "destination must be text"
    ),
    # Clients
    "client_field_misspelled": one(clients(KOMMO.replace("}}", "}, «1»scops: a}")), "did you mean scopes?"),
    "client_required_misspelled": one(clients(KOMMO.replace("client_id", "«1»client_di")), "did you mean client_id?"),
    "client_field_missing": one(clients(KOMMO.replace("- {", "- «1»{").replace("client_id: a, ", "")), "client_id is missing"),
    "client_secret_missing": one(clients("- «1»{platform: kommo, name: acme, client_id: a}"), "client_secret is missing"),
    "client_name": one(clients(KOMMO.replace("acme", "«1»Acme!")), "2 to 32 of a-z"),
    "client_number": one(clients(KOMMO.replace("client_id: a", "client_id: «1»12345")), "YAML reads a number here"),
    "client_null": one(clients(KOMMO.replace("client_id: a", "client_id: «1»~")), "it is empty here"),
    "client_unknown_platform": one(clients(KOMMO.replace("kommo", "«1»komo")), "platform"),
    "client_endpoint_of_known_platform": one(
        clients(KOMMO.replace("}}", "}, token_url: «1»'https://login.example.com/token'}")), "which has its own"
    ),
    "client_host": one(clients(SHOP.replace("https://login.example.com/token", "«1»http://login.example.com/token")), "https"),
    "client_ip_address": one(clients(SHOP.replace("https://login.example.com/token", "«1»https://10.0.0.1/token")), "IP"),
    "client_public_suffix": one(clients(SHOP.replace("[api.example.com]", "[api.example.com, «1»'*.com']")), "public suffix"),
    "client_without_domains": one(
        clients(SHOP.replace("- {", "- «1»{").replace("api_domains: [api.example.com], ", "")), "api_domains is missing"
    ),
    "client_domain_of_others": one(clients(KOMMO.replace("}}", "}, api_domains: «1»[api.example.com]}")), "may hold only"),
    # Connections
    "connection_name_short": one(connections(ERP.replace("erp", "«1»er")), "3 to 64"),
    "connection_name_reserved": one(connections(ERP.replace("erp", "«1»kommo-erp")), "names that begin with kommo-"),
    "connection_platform": one(connections(ERP.replace("platform: http", "platform: «1»htp")), "platform "),
    "connection_made_by_install": one(connections(ERP.replace("platform: http", "platform: «1»kommo")), "by installing"),
    "connection_kind": one(connections(ERP.replace("api_key", "«1»apikey")), "api_key, basic, bearer"),
    "connection_domain_scheme": one(connections(ERP.replace("api.example.com", "«1»https://api.example.com")), "without https://"),
    "connection_domain_port": one(connections(ERP.replace("api.example.com", "«1»'api.example.com:8443'")), "without a port"),
    "connection_domain_missing": one(
        connections(ERP.replace("- {", "- «1»{").replace("allowed_domain: api.example.com, ", "")), "allowed_domain is missing"
    ),
    "connection_field_misspelled": one(connections(ERP.replace("header_name", "«1»header_nam")), "did you mean header_name?"),
    "connection_header": one(connections(ERP.replace("X-Key", "«1»Cookie")), "must not be cookie"),
    "connection_yes_without_quotes": one(
        connections(ERP.replace("X-Key", "X-Key1, allow_digits_in_header_name: «1»yes")), "YAML reads true or false here"
    ),
    "connection_credential_misspelled": one(connections(ERP.replace("key: {", "«1»kye: {")), "did you mean key?"),
    "connection_credential_missing": one(
        connections(ERP.replace("credentials: {key: {env: SECRET}}", "«1»credentials: {}")), "credentials.key is missing"
    ),
    "connection_credential_number": one(connections(ERP.replace("{env: SECRET}", "«1»777888999")), "put it in quotes"),
    "connection_client_unknown": one(
        connections("- {name: shop-main, platform: oauth2, kind: oauth2, client: «1»shop, allowed_domain: api.example.com}"),
        "no OAuth client of oauth2",
    ),
    "connection_outside_the_clients_domains": one(
        clients(SHOP)
        + connections("- {name: shop-main, platform: oauth2, kind: oauth2, client: shop, allowed_domain: «1»api.example.org}"),
        "registered for api.example.com and not for api.example.org",
    ),
    "connection_of_the_wrong_grant": one(
        clients(SHOP)
        + connections(
            "- {name: shop-main, platform: oauth2, kind: client_credentials, client: «1»shop, allowed_domain: api.example.com}"
        ),
        "has the grant authorization_code",
    ),
    # Routes
    "route_field_misspelled": one(routes(f"{{{ROUTE}, «1»dedupe_feilds: [email]}}"), "did you mean dedupe_fields?"),
    "route_source_form": one(
        routes(f"{{{ROUTE.replace(QUOTED, '«1»' + QUOTED.replace('client', 'clients'))}}}"), "connection:NAME"
    ),
    "route_source_unknown": one(
        routes(f"{{{ROUTE.replace(QUOTED, '«1»' + QUOTED.replace('acme', 'acne'))}}}"),
        "did you mean kommo/acme?",
    ),
    "route_destination_unknown": one(
        routes(f"{{{ROUTE.replace('marketo-main', '«1»marketo-mian')}}}"), "did you mean marketo-main?"
    ),
    "route_not_a_destination": one(
        clients(KOMMO) + connections(ERP) + f"routes:\n  - {{{ROUTE.replace('marketo-main', '«1»erp')}}}\n",
        "cannot be sent to http",
    ),
    "route_object_not_read": one(
        routes(f"{{{ROUTE.replace('contacts', '«1»leads')}, target: persons, mapping: {{email: email}}}}"), "no leads"
    ),
    "route_target": one(routes(f"{{{ROUTE}, target: «1»leads}}"), "persons, companies or customobjects"),
    "route_weight": one(routes(f"{{{ROUTE}, weight: «1»0}}"), "weight must be"),
    "route_priority": one(routes(f"{{{ROUTE}, priority: «1»urgent}}"), "'normal' or 'high'"),
    "route_expression": one(routes(f"{{{ROUTE}, mapping: {{email: «1»'email ||'}}}}"), "ends too early"),
    "route_expression_function": one(routes(f"{{{ROUTE}, mapping: {{email: «1»lenght(email)}}}}"), "lenght()"),
    "route_attribute": one(routes(f"{{{ROUTE}, mapping: {{email: email, «1»e-mail: email}}}}"), "attribute's API name"),
    "route_dedupe_not_mapped": one(
        routes(f"{{{ROUTE}, dedupe_fields: «1»[emial], mapping: {{email: email}}}}"), "did you mean email?"
    ),
    "route_option_unknown": one(routes(f"{{{ROUTE}, options: {{«1»partitoin: x}}}}"), "action, dedupe_by, partition"),
    "route_option_value": one(routes(f"{{{ROUTE}, options: {{action: «1»upsert}}}}"), "createOnly"),
    # Several problems
    "many": Wrong(
        clients(KOMMO.replace("SECRET", "SPACED").replace("{env", "«1»{env"), SHOP.replace("a,", "«2»a b,", 1))
        + connections(
            ERP.replace("X-Key", "«3»Cookie").replace("api.example.com", "«0»10.0.0.1"),
            MARKETO.replace("client_id: a", "«4»clientid: a"),
        )
        + "routes:\n"
        + f"  - {{{ROUTE}, «5»dedupe_feilds: [email], weight: «6»101, "
        + "mapping: {firstName: «7»'name |', «8»'last name': x}}\n"
        + f"  - {{{ROUTE.replace('one', 'two').replace('marketo-main', '«9»nowhere')}}}\n",
        (
            "IP address", "printable ASCII", "3 characters", "must not be cookie", "did you mean client_id?",
            "did you mean dedupe_fields?", "100", "ends too early", "attribute's API name", "no connection nowhere",
        ),
    ),
}  # fmt: skip


def unmarked(text: str) -> tuple[str, dict[int, tuple[int, int]]]:
    """The file without its marks, and the line and column of each."""
    places = {}
    while found := re.search(r"«(\d+)»", text):
        before = text[: found.start()]
        places[int(found[1])] = (before.count("\n") + 1, found.start() - before.rfind("\n"))
        text = before + text[found.end() :]
    return text, places

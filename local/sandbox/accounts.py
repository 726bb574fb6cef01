"""The accounts of the sandbox. Existing accounts stay unchanged, so this can run again at any time."""

from __future__ import annotations

import hashlib

from local.control import Control
from local.sandbox.environment import CUSTOMER, LOCATION, MUNCHKIN, PROVIDERS, Variables
from local.stack import Stack

# The Kommo client of examples/portaria.yaml and the OAuth clients of examples/connections.yaml.
KOMMO_CLIENT, OAUTH_CLIENTS = "acme", ("shop", "billing")
KOMMO_ACCOUNTS = {"padaria": 300, "livraria": 200, "floricultura": 400}
ENGAGE_LOGINS = ("ana.souza", "joao.lima", "maria.silva")


def furnish(control: Control, stack: Stack, variables: Variables) -> None:
    """Create the missing accounts. Redirect URIs use the API's present address."""
    _kommo(control, stack, variables)
    if MUNCHKIN.lower() not in {each["munchkin"] for each in control.marketo()}:
        control.add_marketo_instance(MUNCHKIN, variables["MARKETO_CLIENT_ID"], variables["MARKETO_CLIENT_SECRET"])
    _providers(control, stack, variables)
    _leadconnector(control, variables["LEADCONNECTOR_TOKEN"])
    _engage(control, variables)


def _kommo(control: Control, stack: Stack, variables: Variables) -> None:
    redirect_uri = f"{stack.public_url}/install/kommo/{KOMMO_CLIENT}"
    control.add_kommo_client(variables["KOMMO_CLIENT_ID"], variables["KOMMO_CLIENT_SECRET"], redirect_uri, name="Acme")
    existing = {account["host"] for account in control.kommo()["accounts"]}
    for subdomain, contacts in KOMMO_ACCOUNTS.items():
        if f"{subdomain}.kommo.com" not in existing:
            control.add_kommo_account(subdomain, contacts=contacts)


def _providers(control: Control, stack: Stack, variables: Variables) -> None:
    credentials = {
        "shop": (variables["SHOP_CLIENT_ID"], variables["SHOP_CLIENT_SECRET"]),
        "billing": (variables["BILLING_CLIENT_ID"], variables["BILLING_CLIENT_SECRET"]),
        "erp": ("erp", variables["ERP_KEY"]),
        "warehouse": (variables["WAREHOUSE_USER"], variables["WAREHOUSE_PASSWORD"]),
        "helpdesk": ("helpdesk", variables["HELPDESK_TOKEN"]),
    }
    existing = set(control.oauth2_providers())
    for name in PROVIDERS:
        redirect_uri = f"{stack.public_url}/install/oauth2/{name}" if name in OAUTH_CLIENTS else ""
        if name in existing:
            control.change_oauth2(name, redirect_uri=redirect_uri)
        else:
            control.add_oauth2_provider(name, *credentials[name], redirect_uri=redirect_uri)


def _leadconnector(control: Control, token: str) -> None:
    state = control.leadconnector()
    if LOCATION not in {location["id"] for location in state["locations"]}:
        control.add_leadconnector_location(LOCATION)
    if hashlib.sha256(token.encode()).hexdigest() not in state["tokens"]:
        control.add_leadconnector_token(token, LOCATION)


def _engage(control: Control, variables: Variables) -> None:
    if CUSTOMER not in {user["customer_id"] for user in control.engage()}:
        control.add_engage_user(
            CUSTOMER,
            variables["ENGAGE_USER"],
            variables["ENGAGE_PASSWORD"],
            client_id=variables["ENGAGE_CLIENT_ID"],
            client_secret=variables["ENGAGE_CLIENT_SECRET"],
            customer_token=variables["ENGAGE_CUSTOMER_TOKEN"],
            environment="production",
        )
    control.add_engage_people(CUSTOMER, *ENGAGE_LOGINS, environment="production")

"""The groups of operations: by the first step of their paths, the title and a description of each."""

from __future__ import annotations

from portaria import platforms

API_DOCUMENTS = tuple(filter(None, (platform.api_document for platform in platforms.every())))
TAGS: dict[str, tuple[str, str]] = {
    "platforms": (
        "Discovery",
        "What platforms offer, which scopes there are, who the caller is, and whether the API answers.",
    ),
    "overview": (
        "Overview and settings",
        "What arrived, what is about to end and what is stuck, and how the stack is set up.",
    ),
    "oauth-clients": ("OAuth clients", "Applications that are registered with platforms."),
    "connections": ("Connections", "Stored credentials, each for one account, and requests that use them."),
    "routes": ("Routes", "Which records are sent to which destination, and how they are mapped."),
    "install-links": ("Install links", "URLs that start an install for one of your customers, and its tags."),
    "installs": ("Installs", "Authorization codes that arrived, and the outcome of each."),
    "receipts": ("Receipts", "The outcome of each request to a destination. Kept for 30 days."),
    "destinations": ("Destinations", "Destinations that are paused or have waiting records."),
    "dead-letters": ("Dead letters", "Records that could not be delivered, with the reason. Kept for 90 days."),
    "private-integrations": ("Private integrations", "Named, scoped tokens for programs that call this API."),
    "console-sessions": (
        "Console sessions",
        "Links that open the console in a browser, and the sessions that are open.",
    ),
    "webhooks": ("Webhooks", "Endpoints of your application that receive events, and what was sent to them."),
    "audit": ("Audit", "Who requested which change, and its outcome."),
    **{api.NAME: api.TAG for api in API_DOCUMENTS},
    "install": ("Install pages", "What a customer's browser and a marketplace open to install an application."),
    "incoming-webhooks": (
        "Incoming webhooks",
        "What platforms call: events of accounts, uninstalls and delivery reports.",
    ),
    "sso": ("Single sign-on links", "Links that a browser opens."),
    "events": ("Events", "What has happened in the stack, for the programs of its owner."),
}
# The first steps of paths that share a tag with another.
_TAG_OF = {
    "settings": "overview",
    "records": "routes",
    "scopes": "platforms",
    "me": "platforms",
    "health": "platforms",
    "openapi.json": "platforms",
    "reference": "platforms",
}


def of(path: str) -> str:
    """The title of the tag of a path below the API's root."""
    first = path.split("/")[1]
    return TAGS[_TAG_OF.get(first, first)][0]

"""The operations of install links, of which an authorization is one for an existing connection."""

from __future__ import annotations

from http import HTTPStatus

from portaria.api.operation import Operation
from portaria.api.resources import install_links
from portaria.api.resources.connections import authorizations
from portaria.api.rules import install_link_rules

CREATED, NO_CONTENT = HTTPStatus.CREATED, HTTPStatus.NO_CONTENT

OPERATIONS = [
    Operation(
        "create_authorization", "POST", "/connections/{name}/authorizations", "authorizations:create",
        "Create an authorization link", authorizations.create, authorizations.Authorization,
        status=CREATED, creates=True, is_secret=True, changes=True,
        description="A person opens the link to grant access, in one browser, within 15 minutes. It is an install link for "
        "exactly this connection; `POST /install-links` has more options.",
    ),
    Operation(
        "create_install_link", "POST", "/install-links", "install-links:create", "Create an install link",
        install_links.create, install_links.InstallLinkWithUrl, input=install_link_rules.InstallLinkCreation, status=CREATED,
        creates=True, is_secret=True, changes=True,
        description="A customer opens `url` to install, to authorize one connection again (`connection`), or to say whose "
        "account installed (`account_id`). The tags are attached to the install and its connection; they are not in the URL.",
    ),
    Operation(
        "list_install_links", "GET", "/install-links", "install-links:list", "List install links",
        install_links.list_page, install_links.InstallLinkOutput, listing=True,
        description="The newest comes first. Links that ended in the last seven days are included. The URLs are not returned.",
    ),
    Operation(
        "show_install_link", "GET", "/install-links/{id}", "install-links:show", "Get an install link",
        install_links.get, install_links.InstallLinkOutput,
        description="The URL is not returned again.",
    ),
    Operation(
        "delete_install_link", "DELETE", "/install-links/{id}", "install-links:delete", "Delete an install link",
        install_links.delete, None, status=NO_CONTENT, changes=True,
        description="The link stops working. A browser that has opened it can finish the install for up to 30 minutes.",
    ),
]  # fmt: skip

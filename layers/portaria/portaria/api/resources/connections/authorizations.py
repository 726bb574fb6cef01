"""Authorizations: the install link with which a person authorizes one connection, for a short time and a single use."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from portaria.api.operation import ApiRequest, Reply
from portaria.api.resources import install_links as links
from portaria.api.rules import install_link_rules
from portaria.api.schemas import Output, Time
from portaria.connections import connection_store
from portaria.installs import install_links

LIFE = timedelta(minutes=15)


class Authorization(Output):
    """An install link with which a person grants a connection access to an account."""

    id: str = Field(description="The install link's id.")
    url: str = Field(description="The link to give to the person. It is returned once.")
    expires_at: Time = Field(description="When the link stops working.")


def create(asked: ApiRequest) -> Reply:
    """An install link that authorizes a connection, also one that is connected already, without tags or return URL.

    Raises `Rejected`: 404 `unknown_connection`, and 409 as `install_link_rules.reconnection`.
    """
    table = asked.context.table
    link = install_link_rules.reconnection(table, connection_store.get(table, asked.path["name"]))
    link_id, token = install_links.create(table, link, LIFE)
    stored = install_links.get(table, link_id)
    return Reply({"id": link_id, "url": links.url_of(table, link, token), "expires_at": stored.expires_at})

"""Replacing a connection's tags."""

from __future__ import annotations

from pydantic import Field

from portaria.api.operation import ApiRequest, Reply, changed_meanwhile, require_match
from portaria.api.resources.connections import connections
from portaria.api.rules.install_link_rules import GivenTags
from portaria.api.rules.stored_resources import is_deleted
from portaria.api.validation import Input
from portaria.aws.table import Conflict
from portaria.connections import connection_store
from portaria.core import clock
from portaria.core.errors import ConnectionRemoved, Rejected
from portaria.core.tags import parse_tags


class TagsReplacement(Input):
    """All tags of a connection. A tag that is not given is removed."""

    tags: GivenTags = Field(description="Which of your customers the connection belongs to, such as `customer_id`.")


def replace(asked: ApiRequest) -> Reply:
    """Raises `Rejected`: 400 `bad_tags`, 404 `unknown_connection`, 409 `connection_removed`, 409 or 412 `changed_meanwhile`."""
    table, name = asked.context.table, asked.path["name"]
    tags = parse_tags(asked.sent.tags)
    connection = connection_store.get(table, name)
    if is_deleted(connection):
        raise Rejected("unknown_connection", f"the connection {name} has been deleted", field="connection", status=404)
    if connection.state == "removed":
        raise ConnectionRemoved(f"the connection {name} has been removed")
    require_match(asked, connections.etag(connection))
    try:
        connection = connection_store.replace_tags(table, connection, tags, clock.now())
    except Conflict:
        raise changed_meanwhile(asked) from None
    return Reply(connections.show(connection), etag=connections.etag(connection))

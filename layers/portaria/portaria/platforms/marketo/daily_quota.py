"""The daily quota of the Data Ingestion API, which all objects of a subscription share.

https://experienceleague.adobe.com/en/docs/marketo-developer/marketo/rest/data-ingestion
"""

from __future__ import annotations

from portaria.core.entities import Connection

DAILY_QUOTA = 10_000_000


def subscription(connection: Connection) -> str:
    """The Munchkin id, which several connections may have."""
    return connection.fields["munchkin_id"].upper()

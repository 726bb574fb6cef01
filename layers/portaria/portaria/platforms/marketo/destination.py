"""What Marketo takes from a route.

https://experienceleague.adobe.com/en/docs/marketo-developer/marketo/data-ingestion/data-ingestion
"""

# The source's object, and the part of this platform that sends it.
ACCEPTED = {"contacts": "persons"}

# The attributes that Marketo lists for deduplication, by object. It also takes custom attributes of type string and
# integer, which cannot be told from a slip of the pen, and its own example uses one that it does not list (firstName).
DEDUPE_ATTRIBUTES = {
    "contacts": ("id", "email", "sfdcAccountId", "sfdcContactId", "sfdcLeadId", "sfdcLeadOwnerId"),
}

"""Examples of the API's document: one object for each schema of a request or response, all of one invented stack.

Nothing but `portaria.api.openapi` imports these modules, so they cost the other operations no time at a cold start.
"""

"""The API's document, docs/openapi.yaml; `python -m portaria.api.openapi` prints it. `document.build` is its beginning.

It is generated from the table of operations, the models of their input and output, the platforms' data ingestion endpoints and
the catalogue of events. Only the requests for the document and its page import this package.
"""

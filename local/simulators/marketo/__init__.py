"""Marketo, as Adobe describes it: the identity service, the Data Ingestion API, and its Observability Data Stream.

Source pages: the authentication page of the REST API, the pages of the Data Ingestion API (limits, error codes, headers), and
those of the stream. Adobe does not document the reasons for which an object fails. The simulator uses HTTP status codes as
reasons, as Adobe's example does: 400 without a value to look the object up by, 404 if an object that it refers to does not
exist, 409 if it exists already.
"""

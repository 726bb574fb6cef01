"""The version of Portaria and of its API. The rules by which it changes are in docs/api.md."""

VERSION = "1.0.0"

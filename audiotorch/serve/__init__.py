"""A local page to try a model, and its JSON endpoint for programs."""

from audiotorch.serve.app import create_app
from audiotorch.serve.server import address_of, open_port, run_server

__all__ = ["address_of", "create_app", "open_port", "run_server"]

"""The Flex API over aiohttp: the client, its connections, the proxy, and what a network fault means."""

from worker.api.client import Api, retry_after

__all__ = ["Api", "retry_after"]

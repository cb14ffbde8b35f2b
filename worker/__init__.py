"""Bulk import of participants into Twilio Flex interaction channels."""

__version__ = "0.1.0"

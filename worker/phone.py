"""Phone numbers as E.164, `+442079460018`: the only room that knows the library, which the extra `phone` brings. Pure.

Strict about how a number is written: whatever is more than a number (letters, an extension, a second number) would be
lost in silence.
"""

import re
from collections.abc import Callable

from worker.errors import ConfigError

_OTHER_NAMES = {"UK": "GB", "EN": "GB"}
_WRITTEN = re.compile(r"(?:tel:)?[\s(]*+[+\uff0b]?[\s(]*+\d[\d\s()./\-\u2010-\u2015\u2212\u00b7]*+")


def e164(region: str, where: str) -> Callable[[str], str | None]:
    """Return what makes E.164 of a number as people of this region write it, or None of what is no valid number.

    region: two letters of ISO 3166; a number with a country's code may be of any other one. Raises ConfigError, naming
    where, for a region that is none, or when the library is missing.
    """
    try:
        import phonenumbers as library  # noqa: PLC0415 - who does not use this needs no library
    except ModuleNotFoundError:
        raise ConfigError(
            f'{where}: filter e164 needs the extra "phone", which is not installed: pip install "flex-import[phone]"'
        ) from None
    if region not in library.SUPPORTED_REGIONS:
        meant = _OTHER_NAMES.get(region.upper(), region.upper())
        known = meant in library.SUPPORTED_REGIONS
        hint = f'did you mean "{meant}"?' if known else "two letters of ISO 3166, as in e164:GB"
        raise ConfigError(f'{where}: filter e164 knows no region "{region}" ({hint})')

    def write(text: str) -> str | None:
        if not _WRITTEN.fullmatch(text):
            return None
        try:
            number = library.parse(text, region)
        except library.NumberParseException:
            return None
        if not library.is_valid_number(number):
            return None
        return library.format_number(number, library.PhoneNumberFormat.E164)

    return write

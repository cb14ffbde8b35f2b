"""Makes the sample files again: `python samples/make_samples.py`. Everybody in them is invented.

1,238 records over 240 channels, of all five types. Some are wrong on purpose, so that a first look shows what happens
to them: 21 that flex-import refuses by itself, 4 repeated ones, and rows for channels that the emulated API refuses.
"""

import csv
import io
import json
import random
from pathlib import Path

HERE = Path(__file__).parent
CHANNELS = 240
CSV_ROWS = 1000
NDJSON_ROWS = 236
MEDIA = ("address", "name", "level", "type", "proxy_address", "identity")
ROUTING = ("task_sid", "worker_sid", "reservation_sid")
FIRST = ("Ada", "Bo", "Chen", "Dina", "Emil", "Femi", "Gita", "Hugo", "Ines", "Jun", "Kofi", "Lena", "Miro", "Noor")
LAST = ("Abel", "Brook", "Castro", "Dahl", "Eriksen", "Fox", "Greco", "Hansen", "Ito", "Jansen", "Khan", "Lopez")


def main() -> None:
    """Write participants.csv, participants.ndjson and channels.json."""
    dice = random.Random(20)
    channels = [(_sid(dice, "KD"), _sid(dice, "UO")) for _ in range(CHANNELS)]
    records = [_record(dice, number, channels[number % CHANNELS]) for number in range(CSV_ROWS + NDJSON_ROWS)]
    _write_csv(records[:CSV_ROWS])
    _write_ndjson(records[CSV_ROWS:])
    special = {
        "missing": [channels[number][1] for number in (17, 101)],
        "closed": [channels[number][1] for number in (42, 43, 160)],
        "full": [channels[77][1]],
    }
    (HERE / "channels.json").write_text(json.dumps(special, indent=2) + "\n", encoding="utf-8")


def _sid(dice: random.Random, prefix: str) -> str:
    return f"{prefix}{dice.getrandbits(128):032x}"


def _record(dice: random.Random, number: int, channel: tuple[str, str]) -> dict[str, object]:
    name = f"{dice.choice(FIRST)} {dice.choice(LAST)}"
    mail = f"{name.replace(' ', '.').lower()}.{number}@example.com"
    phone = f"+1555{number:07}"
    kind = dice.choices(("customer", "agent", "supervisor", "external", "unknown"), (60, 20, 8, 7, 5))[0]
    routing: dict[str, str] = {}
    if kind in {"agent", "supervisor"}:
        media = {"identity": f"{name.split(maxsplit=1)[0].lower()}_{number}"}
        routing = {"task_sid": _sid(dice, "WT"), "worker_sid": _sid(dice, "WK"), "reservation_sid": _sid(dice, "WR")}
    else:
        media = dice.choice(
            (
                {"address": mail, "name": name, "level": dice.choice(("to", "cc")), "type": "email"},
                {"address": phone, "proxy_address": "+15550000001"},
                {"address": f"whatsapp:{phone}", "proxy_address": "whatsapp:+15550000001", "name": name},
            )
        )
    return {
        "interaction_sid": channel[0],
        "channel_sid": channel[1],
        "type": kind,
        "media_properties": media,
        "routing_properties": routing,
    }


def _flat(record: dict[str, object]) -> list[str]:
    media, routing = record["media_properties"], record["routing_properties"]
    assert isinstance(media, dict)
    assert isinstance(routing, dict)
    sids = [str(record[name]) for name in ("interaction_sid", "channel_sid", "type")]
    return [*sids, *(media.get(name, "") for name in MEDIA), *(routing.get(name, "") for name in ROUTING)]


def _write_csv(records: list[dict[str, object]]) -> None:
    rows = [_flat(record) for record in records]
    for number in (58, 301, 302, 777):
        rows[number][1] = rows[number][1][:-3]  # a channel sid that lost its end
    for number in (120, 640):
        rows[number][2] = "Kunde"  # a type of the old system
    for number in (205, 206, 207, 208, 209, 910):
        rows[number][3:9] = [""] * 6  # nobody to be added
    rows[450][3] = "line one\nline two"  # a field of two lines: no error
    for number in (333, 334):
        rows[number] = rows[number - 10]  # the same record again
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ["interaction_sid", "channel_sid", "type"]
    writer.writerow([*names, *(f"media_properties.{n}" for n in MEDIA), *(f"routing_properties.{n}" for n in ROUTING)])
    for number, row in enumerate(rows):
        writer.writerow(row[:5] if number in {88, 89, 500} else row)  # cut off
    (HERE / "participants.csv").write_text(text.getvalue(), encoding="utf-8")


def _write_ndjson(records: list[dict[str, object]]) -> None:
    lines = []
    for number, record in enumerate(records):
        if not record["routing_properties"]:
            del record["routing_properties"]
        lines.append(json.dumps(record, ensure_ascii=False))
        if number in {30, 31}:
            lines.append(lines[-1])
    for number in (12, 60, 150):
        lines[number] = lines[number][:-25]  # cut off
    for number in (77, 78, 79):
        lines[number] = lines[number].replace('"media_properties"', '"media_propertys"')  # a typo
    (HERE / "participants.ndjson").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""How columns and roles are called in exports: English, German, French and Spanish."""

import difflib
import re
import unicodedata

_EXACT, _WITHIN, _SIMILAR = 3, 2, 1
_SHORTEST = 5
"""Of a single word that is looked for inside a longer name: "tel" is in "hotel", "name" is in the name of a queue."""

COLUMNS: dict[str, tuple[str, ...]] = {
    "interaction_sid": ("interaction sid", "interaction", "kd"),
    "channel_sid": ("channel sid", "channel", "uo", "kanal sid", "canal sid"),
    "task_sid": ("task sid",),
    "worker_sid": ("worker sid",),
    "reservation_sid": ("reservation sid",),
    "media_properties": ("media properties",),
    "routing_properties": ("routing properties",),
    "role": ("role", "rolle", "rol", "participant role", "user role", "participant type", "party type", "user type",
             "teilnehmertyp", "type de participant", "tipo de participante"),
    "kind": ("type", "kind", "typ", "tipo", "art", "party", "category", "funktion", "fonction", "funcion"),
    "email": ("email", "email address", "e mail address", "mail", "mail address", "email adresse", "mailadresse",
              "correo", "correo electronico", "courriel", "adresse email", "adresse mail", "smtp address"),
    "phone": ("phone", "phone number", "mobile", "mobile number", "msisdn", "telephone", "telephone number", "tel",
              "cell", "cell phone", "ani", "caller id", "sms number", "whatsapp", "telefon", "telefonnummer", "handy",
              "handynummer", "mobil", "mobilnummer", "rufnummer", "telefono", "movil", "celular", "portable",
              "numero de telephone", "numero de telefono"),
    "identity": ("identity", "login", "user name", "login name", "agent login", "agent id", "user id", "benutzername",
                 "benutzer", "anmeldename", "identifiant", "nom d utilisateur", "usuario"),
    "first": ("first name", "given name", "forename", "vorname", "prenom", "nombre de pila"),
    "last": ("last name", "surname", "family name", "nachname", "familienname", "nom de famille", "apellido",
             "apellidos"),
    "full": ("name", "full name", "display name", "customer name", "client name", "contact name", "agent name",
             "anzeigename", "kundenname", "vollstandiger name", "nom", "nom complet", "nombre", "nombre completo"),
    "conversation": ("conv id", "conversation id", "conversation", "interaction id", "interaction", "contact id",
                     "call id", "case id", "ticket id", "ticket", "session id", "chat id", "thread id", "gesprach",
                     "gesprachs id", "vorgang", "vorgangsnummer", "conversacion", "conversacion id",
                     "id conversacion", "id conversation", "appel id", "llamada id"),
}  # fmt: skip

OTHER_HALF = {"vorname": "name", "prenom": "nom", "apellido": "nombre", "apellidos": "nombre"}
"""Beside a first or last name of such a name, the column of this name holds the other half only."""

_IDENTIFIERS = frozenset(
    {
        *("id", "ids", "uid", "oid", "uuid", "guid", "nr", "no", "num", "number", "nummer", "numero", "key", "ref"),
        *("reference", "referenz", "referencia", "code", "kennung", "schlussel", "identifiant", "clave", "pk"),
    }
)

_ROLES: dict[str, str] = {
    **dict.fromkeys(("agent", "agente", "agentin", "mitarbeiter", "mitarbeiterin", "berater", "beraterin"), "agent"),
    **dict.fromkeys(("operator", "operador", "operateur", "conseiller", "conseillere", "representative"), "agent"),
    **dict.fromkeys(("rep", "advisor", "adviser", "csr", "employee", "empleado", "employe", "asesor"), "agent"),
    **dict.fromkeys(("customer", "client", "cliente", "cliente", "kunde", "kundin", "caller", "anrufer"), "customer"),
    **dict.fromkeys(("contact", "consumer", "visitor", "enduser", "guest", "gast", "patient", "appelant"), "customer"),
    **dict.fromkeys(("supervisor", "supervisora", "superviseur", "teamlead", "teamleader", "teamleiter"), "supervisor"),
    **dict.fromkeys(("teamleiterin", "manager", "vorgesetzter", "responsable", "coach", "jefe"), "supervisor"),
    **dict.fromkeys(("external", "extern", "externe", "externer", "externo", "thirdparty", "partner"), "external"),
    **dict.fromkeys(("unknown", "unbekannt", "inconnu", "desconocido"), "unknown"),
}


def tokens(name: str) -> tuple[str, ...]:
    """Return the words of a name in small letters without accents: e, mail for "E-Mail", conv, id for "ConvID"."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    plain = unicodedata.normalize("NFKD", apart.casefold())
    bare = "".join(character for character in plain if not unicodedata.combining(character))
    return tuple(re.findall(r"[^\W_]+", bare))


def likeness(column: str, meaning: str) -> int:
    """Return how much a column is called like what has this meaning: 0 for not at all, the more the better."""
    words = tokens(column)
    joined, spread = "".join(words), f" {' '.join(words)} "
    phrases = COLUMNS[meaning]
    whole = {phrase.replace(" ", "") for phrase in phrases}
    if joined in whole:
        return _EXACT
    if any(f" {phrase} " in spread for phrase in phrases if " " in phrase or len(phrase) >= _SHORTEST):
        return _WITHIN
    long = [name for name in whole if len(name) >= _SHORTEST]
    return _SIMILAR if difflib.get_close_matches(joined, long, n=1, cutoff=0.88) else 0


def is_identifier(column: str) -> bool:
    """Tell whether a column is called as what tells one from another is: an id, a number, a key."""
    words = tokens(column)
    return bool(_IDENTIFIERS & set(words)) or "".join(words).endswith("id")


def role_of(value: str) -> str | None:
    """Return the type that a word for a person's role means; None when that is not clear."""
    words = tokens(value)
    whole = _ROLES.get("".join(words))
    found = {whole} if whole else {_ROLES[word] for word in words if word in _ROLES}
    return found.pop() if len(found) == 1 else None


def first_word(path: str) -> str:
    """Return the first word of a file's name, in small letters; "row" when it has none."""
    found = re.search(r"[^\W\d_]+", path.rpartition("/")[2].partition(".")[0].casefold())
    return found.group() if found else "row"

"""Which licences the packages that we ship may have, and how to read what a package says of itself.

Law: a licence that isn't on the list is a decision of people, so an unknown word is a fault and
never passed over.  All on the list may be shipped beside Apache-2.0 code; MPL-2.0 asks that changes
to its own files are published, and we change none.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from importlib.metadata import PackageMetadata

__all__ = ["ALLOWED", "is_allowed", "licences_of", "refused"]

ALLOWED = frozenset({
    "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MIT-0", "MPL-2.0",
    "PSF-2.0", "Python-2.0",
})  # fmt: skip

# Names that packages give instead of SPDX's, and what they mean.
_CLASSIFIER = "License :: OSI Approved :: "
_MEANT = {
    "Apache 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",  # two clauses or three: both are allowed
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}


def is_allowed(expression: str) -> bool:
    """Whether an SPDX expression, or a name that packages use in place of one, is allowed.

    Of `A OR B` one is enough, of `A AND B` all are needed; OR binds weaker, as in SPDX.
    """
    plain = expression.strip().removeprefix(_CLASSIFIER)
    if plain in _MEANT:
        return True
    if "(" in plain:  # none of ours nests; who does is looked at by people
        return False
    return any(
        all(_MEANT.get(one.strip(), one.strip()) in ALLOWED for one in re.split(r"\s+AND\s+", side))
        for side in re.split(r"\s+OR\s+", plain)
    )


def licences_of(metadata: PackageMetadata) -> list[str]:
    """What a package's metadata says: its expression, else its classifiers, else its free text."""
    if expressions := metadata.get_all("License-Expression"):
        return list(expressions)
    classifiers: Iterable[str] = metadata.get_all("Classifier") or []
    if found := [one for one in classifiers if one.startswith(_CLASSIFIER)]:
        return found
    return [text.strip().splitlines()[0] for text in metadata.get_all("License") or [] if text]


def refused(licences: Iterable[str]) -> list[str]:
    """Those that aren't allowed; a package that names none has one, too."""
    named = list(licences)
    return [one for one in named if not is_allowed(one)] if named else ["no licence at all"]

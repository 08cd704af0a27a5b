"""The desired spec on the controller's disk: what the store shall look like.

Law, as `kubectl apply` has it: a file replaces the stored spec only when the file's content
differs from the one applied last.  So a shard added, or a whole spec put, through the API stays
when the store is started again with the same file, and an edited file wins.  The comparison is on
the document in the file, so a changed comment is not a change.

A stored spec that cannot be read is an error with a sentence, never a reason to begin with the
default: that would drop shards that somebody asked for.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import yaml

from shardcluster.spec import SpecError, parse

if TYPE_CHECKING:
    from collections.abc import Hashable
    from pathlib import Path

__all__ = ["Desired", "DesiredError", "DesiredStore", "load_document", "write_atomically"]

FILE_NAME = "desired.json"
SPEC_FILE_BYTES_MAX = 1 << 20

Document = dict[str, Any]


class DesiredError(Exception):
    """A spec file, or the stored spec, cannot be used; the message is a sentence."""


@dataclass(frozen=True, slots=True)
class Desired:
    """What is stored."""

    document: Document  # valid: `shardcluster.spec.parse` accepts it
    applied_file_sha256: str | None = None  # of the file applied last; None: only the default
    put_sha256: str | None = None  # of the document put since, which may be of the same file
    rebalance_requested: int = 0  # counts /rebalance calls
    rebalance_done: int = 0  # the request that was carried out last
    generation: int = 0  # counts the changes of the document


class DesiredStore:
    """`desired.json` in the state folder; every change is on the disk before it is told."""

    def __init__(self, folder: Path) -> None:
        """Nothing is read or written yet."""
        self._folder = folder
        self._path = folder / FILE_NAME
        self._desired: Desired | None = None

    def open(self, file: Path | None, default: Document) -> str:
        """Find the spec to begin with and say in one sentence which it is.

        Raises DesiredError for a file or a stored spec that can't be read, SpecError for a
        document in `file` that is no valid spec; the stored spec then stays as it was.
        """
        stored = self._read()
        if file is None:
            if stored is None:
                self._write(Desired(parse(default).document()))
                return "Using the default spec."
            self._desired = stored
            return f"Using the spec stored in {self._path}."
        document = load_document(file)
        wanted = parse(document)
        number = _sha256(document)
        if stored is not None and number in {stored.applied_file_sha256, stored.put_sha256}:
            self._desired = stored
            if parse(stored.document) == wanted:
                return f"{file} is applied already."
            return (
                f"{file} was applied already; the changes made since through the API stay "
                "(edit the file to make it count again)."
            )
        self._replace(document, applied=number, put=None)
        return f"Applied {file}." if stored is None else f"Applied {file}: it changed."

    @property
    def desired(self) -> Desired:
        """What is stored; raises RuntimeError before `open` (a bug)."""
        if self._desired is None:
            message = "DesiredStore.open was not called"
            raise RuntimeError(message)
        return self._desired

    @property
    def document(self) -> Document:
        """The desired spec as a document."""
        return self.desired.document

    @property
    def generation(self) -> int:
        """How often the document was changed."""
        return self.desired.generation

    def apply(self, document: Document) -> None:
        """A whole document from a user (PUT /spec); raises SpecError if it is not valid."""
        applied = self._desired.applied_file_sha256 if self._desired else None
        self._replace(document, applied=applied, put=_sha256(document))

    def _replace(self, document: Document, *, applied: str | None, put: str | None) -> None:
        valid = parse(document).document()
        before = self._desired or Desired(valid)
        self._write(
            replace(
                before,
                document=valid,
                applied_file_sha256=applied,
                put_sha256=put,
                generation=before.generation + 1,
            )
        )

    def edit(self, document: Document) -> None:
        """A change made through the API, kept until a file with other content is applied."""
        valid = parse(document).document()
        number = self.desired.generation + 1
        self._write(replace(self.desired, document=valid, generation=number))

    def request_rebalance(self) -> int:
        """Note that somebody asked for a rebalance; returns the number of the request."""
        number = self.desired.rebalance_requested + 1
        self._write(replace(self.desired, rebalance_requested=number))
        return number

    @property
    def rebalance_wanted(self) -> bool:
        """Whether a rebalance was asked for that is not done."""
        return self.desired.rebalance_done < self.desired.rebalance_requested

    def mark_rebalanced(self) -> None:
        """Every rebalance asked for so far is done."""
        if self.rebalance_wanted:
            self._write(replace(self.desired, rebalance_done=self.desired.rebalance_requested))

    def _read(self) -> Desired | None:
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise self._unusable(str(error)) from error
        try:
            return _checked(dict(json.loads(text)))
        except (TypeError, ValueError, SpecError) as error:
            raise self._unusable(str(error)) from error

    def _unusable(self, why: str) -> DesiredError:
        message = (
            f"The stored spec {self._path} can't be used ({why.rstrip('.')}): mend it, or move it "
            "away and give the spec again with -f FILE."
        )
        return DesiredError(message)

    def _write(self, desired: Desired) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self._path, json.dumps(asdict(desired), indent=2) + "\n")
        self._desired = desired


def _checked(fields: dict[str, Any]) -> Desired:
    """What was read, if every field is right; raises TypeError or SpecError."""
    for name in ("rebalance_requested", "rebalance_done", "generation"):
        if type(fields.get(name, 0)) is not int:
            message = f"{name} is no whole number"
            raise TypeError(message)
    for name in ("applied_file_sha256", "put_sha256"):
        if not isinstance(fields.get(name), str | None):
            message = f"{name} is no text"
            raise TypeError(message)
    desired = Desired(**fields)
    return replace(desired, document=parse(desired.document).document())


class _UniqueKeysLoader(yaml.SafeLoader):
    """YAML without its silent trap: the second of two equal keys would win."""

    def construct_mapping(
        self,
        node: yaml.MappingNode,
        deep: bool = False,  # noqa: FBT001, FBT002 - PyYAML's own
    ) -> dict[Hashable, Any]:
        """Refuse a key that stands twice."""
        seen: set[str] = set()
        for key_node, _ in node.value:
            if key_node.value in seen and isinstance(key_node.value, str):
                message = f"the key {key_node.value!r} stands twice"
                raise yaml.MarkedYAMLError(problem=message, problem_mark=key_node.start_mark)
            if isinstance(key_node.value, str):
                seen.add(key_node.value)
        return super().construct_mapping(node, deep=deep)


def load_document(file: Path) -> Document:
    """The one YAML or JSON document in `file`; raises DesiredError with a sentence."""
    try:
        with file.open("rb") as stream:
            content = stream.read(SPEC_FILE_BYTES_MAX + 1)
    except OSError as error:
        message = f"The spec file {file} can't be read: {error.strerror}."
        raise DesiredError(message) from error
    if len(content) > SPEC_FILE_BYTES_MAX:
        message = f"The spec file {file} is larger than {SPEC_FILE_BYTES_MAX} bytes."
        raise DesiredError(message)
    try:
        documents = [found for found in yaml.load_all(content, _UniqueKeysLoader) if found]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        message = f"The spec file {file} is not YAML: {error.problem}{where}."
        raise DesiredError(message) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        message = f"The spec file {file} is not YAML: {str(error).splitlines()[0]}."
        raise DesiredError(message) from error
    if len(documents) != 1 or not isinstance(documents[0], dict):
        message = f"The spec file {file} must hold one ShardCluster document."
        raise DesiredError(message)
    return documents[0]


def write_atomically(path: Path, text: str) -> None:
    """Replace the file's content such that a crash leaves the old or the new, whole."""
    scratch = path.with_name(f".{path.name}.new")
    with scratch.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    scratch.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _sha256(document: Document) -> str:
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()

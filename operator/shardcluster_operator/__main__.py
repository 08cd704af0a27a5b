"""`python -m shardcluster_operator`: the operator's process."""

from __future__ import annotations

import asyncio
import logging
import os

import click
import kopf

from shardcluster_operator.handlers import Operator, Settings, registry_for

HEALTH_PORT = 8081


@click.command()
@click.option("--namespace", default="", help="Serve this namespace alone; all without it.")
@click.option(
    "--gateway-image",
    envvar="GATEWAY_IMAGE",
    default="shardcluster-api:latest",
    show_default=True,
    help="The image of the gateways.",
)
@click.option(
    "--operator-namespace", envvar="POD_NAMESPACE", default="default", show_default=True,
    help="Where the operator itself runs.",
)  # fmt: skip
@click.option("--health-port", default=HEALTH_PORT, show_default=True)
@click.option("--verbose", is_flag=True)
def main(
    namespace: str, gateway_image: str, operator_namespace: str, health_port: int, *, verbose: bool
) -> None:
    """Run the operator until it is ended."""
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    settings = Settings(gateway_image, operator_namespace, (namespace,) if namespace else ())
    operator = Operator(settings)
    asyncio.run(
        kopf.operator(
            registry=registry_for(operator),
            namespaces=[namespace] if namespace else (),
            clusterwide=not namespace,
            standalone=True,
            liveness_endpoint=f"http://0.0.0.0:{health_port}/healthz",
        )
    )


if __name__ == "__main__":
    os.umask(0o077)
    main()

"""What /openapi.json says, schemathesis tries: good and bad requests, answers as described."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

from shardcluster_api.openapi import openapi_document
from shardcluster_api.operations import OPERATIONS
from tests.cluster.gateway_fixtures import front, small_cluster

if TYPE_CHECKING:
    from schemathesis import Case

    from tests.cluster.gateway_fixtures import GatewayProcess

__all__ = ["front", "small_cluster"]

EXAMPLES = 10  # of each operation and front end; the same in each run
TIMEOUT_S = 20.0
INTERNAL_ERROR = 500

# Answers to /subscribe have no end, which tests of their own are for.
SCHEMA = schemathesis.openapi.from_dict(openapi_document(OPERATIONS)).exclude(
    path_regex="subscribe"
)
SCHEMA.config.generation.update(modes=[GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
load_all_checks()
CHECKED: Any = CHECKS.get_by_names(
    [
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
    ]
)


@SCHEMA.exclude(path_regex="/p?subscribe/").parametrize()  # their answers have no end
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_as_described(case: Case[Any], front: GatewayProcess) -> None:
    """Status, type and shape; 503 is for what this gateway has no controller for."""
    response = case.call(base_url=front.url, timeout=TIMEOUT_S)
    assert response.status_code != INTERNAL_ERROR
    case.validate_response(response, checks=CHECKED)

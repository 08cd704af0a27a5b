"""A door as one would write it in an afternoon: Flask and redis-py's cluster client."""

from __future__ import annotations

import flask
import redis

__all__ = ["make"]


def make(seed: str) -> flask.Flask:
    """The app, for a store that `seed` (host:port) is a node of."""
    host, _, port = seed.rpartition(":")
    store = redis.RedisCluster(host=host, port=int(port), read_from_replicas=True)
    app = flask.Flask(__name__)

    @app.get("/get/<key>")
    def get(key: str) -> flask.Response:
        value = store.get(key)
        return flask.Response(value, 404 if value is None else 200)

    @app.put("/set/<key>")
    def put(key: str) -> flask.Response:
        store.set(key, flask.request.get_data())
        return flask.Response(status=204)

    return app

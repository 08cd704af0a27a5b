"""The page that a browser gets at `/`: what this is, and lines to try."""

from __future__ import annotations

__all__ = ["PAGE"]

PAGE = b"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>ShardCluster</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:3rem auto;padding:0 1rem;
color:#1c2330;background:#fff}
pre{background:#f3f5f8;padding:1rem;border-radius:.5rem;overflow-x:auto}
a{color:#0b62c4}
@media(prefers-color-scheme:dark){body{color:#e6e9ef;background:#12161d}pre{background:#1d232d}
a{color:#7db8ff}}
</style></head><body>
<h1>ShardCluster</h1>
<p>This is the HTTP gateway of a sharded key-value store: keys are spread over shards, writes go to
a shard's master, reads to its replicas.</p>
<ul>
<li><a href="/status">/status</a>: shards, nodes, what is going on</li>
<li><a href="/metrics">/metrics</a>: for Prometheus</li>
<li><a href="/openapi.json">/openapi.json</a>: every endpoint</li>
<li><a href="/readyz">/readyz</a>, <a href="/healthz">/healthz</a></li>
</ul>
<p>To try, in a terminal (put this page's address in place of <code>$URL</code>):</p>
<pre>curl -X POST $URL/write -d '{"key":"greeting","value":"hello"}'
curl "$URL/read?key=greeting"
curl -X PUT --data-binary @photo.jpg $URL/v1/keys/photo
curl -X POST $URL/add_node</pre>
</body></html>
"""

"""The page at `/`: what this is and which routes it has. Static; it loads nothing from anywhere."""

PAGE = b"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>SIE gateway</title></head>
<body>
<h1>SIE gateway</h1>
<p>Routes calls to the workers of this cluster and forwards their bytes unread.</p>
<ul>
<li><a href="/health">/health</a>: workers and models, as JSON</li>
<li><a href="/v1/models">/v1/models</a>: every model, and who serves it</li>
<li><a href="/metrics">/metrics</a>: for Prometheus</li>
<li><code>POST /v1/encode/ORG/NAME</code>, <code>/v1/score/ORG/NAME</code>, <code>/v1/extract/ORG/NAME</code></li>
<li><code>POST /v1/embeddings</code>, <code>/v1/rerank</code>: for programs that know nothing of SIE</li>
</ul>
</body>
</html>
"""

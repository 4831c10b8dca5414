"""Images and other artefacts of OCI registries: names, manifests, and copying between where they can lie.

`reference`, `manifest` and `auth` are pure; `registry` and `layout` are where images lie; `sources` finds an
image by the name a chart gives it; `copy` brings images to a registry, children first and tags last.
"""

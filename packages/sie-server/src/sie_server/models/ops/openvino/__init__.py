"""The operations as nodes of an OpenVINO graph, compiled for the CPU straight from the mapped weights.

The only package that imports openvino. `OpenvinoOps` collects nodes while a backbone and its heads run; `compiled`
makes them a `Graph`, whose `run` feeds one batch's plan to one stream.
"""

from sie_server.models.ops.openvino.device import precision_for
from sie_server.models.ops.openvino.graph import Graph
from sie_server.models.ops.openvino.nodes import OpenvinoOps

__all__ = ["Graph", "OpenvinoOps", "precision_for"]

"""The messages of Pulumi's protocol, imported from the SDK without the rest of the SDK.

The `__init__` of the SDK's packages imports the whole SDK. That takes more than half of the plugin's start,
and each `pulumi up` starts the plugin. So these packages are registered, but their `__init__` is not run.
"""

import sys
from importlib.util import find_spec, module_from_spec

for _name in ("pulumi", "pulumi.runtime", "pulumi.runtime.proto"):
    if _name not in sys.modules and (_spec := find_spec(_name)):
        sys.modules[_name] = module_from_spec(_spec)

from pulumi.runtime.proto import (  # noqa: E402
    engine_pb2,
    engine_pb2_grpc,
    plugin_pb2,
    provider_pb2,
    provider_pb2_grpc,
)

__all__ = ["engine_pb2", "engine_pb2_grpc", "plugin_pb2", "provider_pb2", "provider_pb2_grpc"]

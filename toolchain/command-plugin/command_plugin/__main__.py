"""`python -m command_plugin [ENGINE_ADDRESS]`: the engine starts it as `pulumi-resource-command`."""

import asyncio
import atexit
import gc
import sys

from .server import serve

if __name__ == "__main__":
    # Pulumi waits until the plugin has ended. Without this the interpreter's last collection visits each
    # object of all modules, which takes a tenth of a second.
    atexit.register(gc.freeze)
    addresses = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    asyncio.run(serve(addresses[0] if addresses else None))

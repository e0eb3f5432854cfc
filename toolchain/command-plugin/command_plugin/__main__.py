"""`python -m command_plugin [ENGINE_ADDRESS]`: the engine starts it as `pulumi-resource-command`."""

import asyncio
import sys

from .server import serve

if __name__ == "__main__":
    addresses = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    asyncio.run(serve(addresses[0] if addresses else None))

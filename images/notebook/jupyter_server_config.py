"""JupyterLab's settings in the image; the token is in a mounted file."""

from pathlib import Path

c = get_config()  # type: ignore[name-defined]  # noqa: F821 - Jupyter defines it for this file

# Not by JUPYTER_TOKEN_FILE, because with it the file's last newline is a part of the token.
c.IdentityProvider.token = Path("/run/secrets/token").read_text().strip()

c.ServerApp.ip = "0.0.0.0"  # noqa: S104 - the container has no other address
c.ServerApp.port = 8888
# The proxy knows only this port.
c.ServerApp.port_retries = 0
c.ServerApp.open_browser = False
c.ServerApp.root_dir = "/home/notebook/work"
# Requests have the proxy's name in their Host header, which the proxy keeps. So the origin check of
# websockets succeeds without further allowed origins.
c.ServerApp.allow_remote_access = True
# Milliseconds; less than the usual idle timeout of proxies and NAT between the browser and the lab.
c.ServerApp.tornado_settings = {"ws_ping_interval": 20_000}
c.ServerApp.terminado_settings = {"shell_command": ["/bin/bash"]}

# No requests for news and updates; the packages are those of the image.
c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"
c.LabApp.extension_manager = "readonly"

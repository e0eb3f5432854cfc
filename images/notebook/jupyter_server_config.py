"""JupyterLab's settings in the image. The token is in a mounted file."""

from pathlib import Path

c = get_config()  # type: ignore[name-defined]  # noqa: F821 - Jupyter defines it for this file

# Jupyter's own JUPYTER_TOKEN_FILE takes the newline at the file's end for a part of the token.
c.IdentityProvider.token = Path("/run/secrets/token").read_text().strip()

c.ServerApp.ip = "0.0.0.0"  # noqa: S104 - the container's own address is all that there is
c.ServerApp.port = 8888
# Another port than the published one would be found by nobody.
c.ServerApp.port_retries = 0
c.ServerApp.open_browser = False
c.ServerApp.root_dir = "/home/notebook/work"
# Requests come through the proxy under the proxy's name. The proxy keeps the Host header, so that the check
# of a websocket's origin works as it is and no other origin has to be allowed.
c.ServerApp.allow_remote_access = True
# Shorter than the usual idle timeout of a proxy or a NAT between the reader and the lab, in milliseconds.
c.ServerApp.tornado_settings = {"ws_ping_interval": 20_000}
c.ServerApp.terminado_settings = {"shell_command": ["/bin/bash"]}

# A lab has no business with the news, and its packages are those of the image.
c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"
c.LabApp.extension_manager = "readonly"

"""JupyterLab's settings in the image; the secret is in a mounted file.

Variables have what differs between notebooks.

`NOTEBOOK_NAME`: its name in the lab; `notebook` by default.
`NOTEBOOK_PATH`: its path at the proxy, such as `/alice/`; `/` by default.
`NOTEBOOK_CULL_SECONDS`: how long a kernel or a terminal may be idle, 0 for ever; 3600 by default.
"""

import os
from pathlib import Path

c = get_config()  # type: ignore[name-defined]  # noqa: F821 - Jupyter defines it for this file

NAME = os.environ.get("NOTEBOOK_NAME") or "notebook"
IDLE_S = int(os.environ.get("NOTEBOOK_CULL_SECONDS") or 3600)
PASSWORD = Path("/run/secrets/password")

if PASSWORD.is_file():
    c.PasswordIdentityProvider.hashed_password = PASSWORD.read_text().strip()
    c.IdentityProvider.token = ""
else:
    # Not by JUPYTER_TOKEN_FILE, because with it the file's last newline is a part of the token.
    c.IdentityProvider.token = Path("/run/secrets/token").read_text().strip()
# A password that a user sets would be another secret beside the token, which the operator does not know.
c.PasswordIdentityProvider.allow_password_change = False

c.ServerApp.ip = "0.0.0.0"  # noqa: S104 - the container has no other address
c.ServerApp.port = 8888
# The proxy knows only this port.
c.ServerApp.port_retries = 0
c.ServerApp.base_url = os.environ.get("NOTEBOOK_PATH") or "/"
c.ServerApp.open_browser = False
c.ServerApp.root_dir = "/home/notebook/work"
# Requests have the proxy's name in their Host header, which the proxy keeps. So the origin check of
# websockets succeeds without further allowed origins.
c.ServerApp.allow_remote_access = True
# Milliseconds; less than the usual idle timeout of proxies and NAT between the browser and the lab.
c.ServerApp.tornado_settings = {"ws_ping_interval": 20_000}
c.ServerApp.terminado_settings = {"shell_command": ["/bin/bash"]}
c.ServerApp.extra_template_paths = ["/etc/jupyter/templates"]
c.ServerApp.jinja_template_vars = {"notebook_name": NAME}

# Notebooks behind one proxy share an origin: a browser sends the cookies of the one at `/` to all of them.
# A login cookie of another name is not taken for an expired one, and not deleted.
c.IdentityProvider.cookie_name = f"notebook-{NAME}"

# An open browser tab does not keep a kernel, a running cell does.
c.MappingKernelManager.cull_idle_timeout = IDLE_S
c.MappingKernelManager.cull_interval = max(1, min(300, IDLE_S // 4))
c.MappingKernelManager.cull_connected = True
c.MappingKernelManager.cull_busy = False
c.TerminalManager.cull_inactive_timeout = IDLE_S
c.TerminalManager.cull_interval = max(1, min(300, IDLE_S // 4))

# No requests for news and updates; the packages are those of the image.
c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"
c.LabApp.extension_manager = "readonly"

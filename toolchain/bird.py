"""Rewrites Calico's confd templates for BIRD 2.

Calico's templates are for its own fork of BIRD 1.6. Distributions have BIRD 2 (Debian 13 has no other), in
which the options about routes belong to a channel of a protocol, one for each address family (BIRD User's
Guide, "Channels"). The rewritten templates configure BIRD 2 as Calico's configure the fork. Settings for IPIP
are removed, because the lab has no IPIP.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from toolchain.errors import ToolchainError


@dataclass(frozen=True)
class Rewrite:
    """A replacement in a template."""

    template: str
    why: str
    count: int
    """How often the pattern matches in this version of Calico."""
    pattern: re.Pattern[str]
    replacement: str


def _rewrite(template: str, why: str, pattern: str, replacement: str, count: int = 1) -> Rewrite:
    return Rewrite(f"{template}.cfg.template", why, count, re.compile(pattern, re.DOTALL), replacement)


_NEXT_HOP = r"""(?P<hops>\{\{- if and \(ne \$data\.as_num[^\n]*keep_next_hop\)\}\}
  next hop keep;
(?:\{\{- end\}\}
\{\{- if eq \$data\.next_hop_mode "\w+"\}\}
  next hop \w+;
)*\{\{- end\}\}
)"""

REWRITES = [
    _rewrite(
        "bird",
        "channel of the kernel protocol",
        r"(  import all;\n  export filter calico_kernel_programming;[^\n]*\n)",
        r"  ipv4 {\n\1  };\n",
    ),
    _rewrite(
        "bird_ipam",
        "BIRD 1.6 exports no routes of interfaces to the kernel",
        r"filter calico_kernel_programming \{\n",
        r"\g<0>  if ( source = RTS_DEVICE ) then { reject; }\n",
    ),
    _rewrite("bird", "channel of the direct protocol", r"protocol direct \{", r"protocol direct {\n  ipv4;"),
    _rewrite(
        "bird_aggr", "channel of the static protocol", r"protocol static \{", r"protocol static {\n  ipv4;"
    ),
    _rewrite(
        "bird",
        "channel of the BGP template",
        r"  gateway recursive;[^\n]*\n  add paths on;\n",
        r"  ipv4 {\n    gateway recursive;\n    add paths on;\n  };\n",
    ),
    _rewrite(
        "bird",
        "channel of the mesh",
        r"(  import all;  +#.*?\n  export filter \{\n.*?\n  \};[^\n]*\n)",
        r"  ipv4 {\n\1  };\n",
    ),
    _rewrite(
        "bird",
        "channel of a peer, with its next-hop options",
        r"(  import filter \{\n.*?\n  export filter \{\n.*?\n  \};[^\n]*\n)(.*?)" + _NEXT_HOP,
        r"  ipv4 {\n\1\g<hops>  };\n\2",
        count=4,
    ),
    _rewrite(
        "bird",
        "the listening port is an option of each protocol",
        r"\{\{- if or \(ne \$listen_address[^\n]*\nlisten bgp[^\n]*\n\{\{- end\}\}\n",
        "",
    ),
    _rewrite(
        "bird",
        "the listening address is an option of each protocol",
        r'print " address " \$node_ip',
        r'print " " $node_ip',
    ),
    _rewrite(
        "bird",
        "local address and port of a session",
        r"  local as \{\{\$node_as_num\}\};",
        r"  local{{$listen_address}}{{$listen_port}} as {{$node_as_num}};"
        r'{{if ne $listen_address ""}}\n  strict bind on;{{end}}',
    ),
    _rewrite("bird_ipam", "no IPIP tunnels", r'krt_tunnel = "[^"]*";', "", count=4),
]


def write_templates(source: Path, target: Path) -> None:
    """Write the rewritten templates for IPv4; containers of the lab have no IPv6.

    Raises:
        ToolchainError: A pattern does not match as often as expected, as in another version of Calico.
    """
    for name in sorted({rewrite.template for rewrite in REWRITES}):
        text = (source / name).read_text()
        for rewrite in REWRITES:
            if rewrite.template == name:
                text = _apply(rewrite, text, source / name)
        (target / name).write_text(text)


def _apply(rewrite: Rewrite, text: str, template: Path) -> str:
    written, found = rewrite.pattern.subn(rewrite.replacement, text)
    if found != rewrite.count:
        raise ToolchainError(
            f"{template}: {rewrite.why}: the pattern matches {found} times instead of {rewrite.count}; "
            f"next: read the template and adapt {Path(__file__).name}"
        )
    return written

"""confd's templates, in the language of BIRD 2.

Calico has a BIRD of its own, a fork of 1.6; distributions have BIRD 2 (Debian 13 nothing older), which puts
what a protocol does with routes into a channel per address family (BIRD User's Guide, "Channels").

Owes: templates that mean to BIRD 2 what Calico's mean to its own BIRD, or an error where Calico's are not
those that this was written for. What only IPIP needs is left out: the lab has no IPIP.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from toolchain.errors import ToolchainError


@dataclass(frozen=True)
class Rewrite:
    """Something of a template, and what stands in its place."""

    template: str
    why: str
    count: int
    """How often it is there in this version of Calico."""
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
        "the kernel's channel",
        r"(  import all;\n  export filter calico_kernel_programming;[^\n]*\n)",
        r"  ipv4 {\n\1  };\n",
    ),
    _rewrite(
        "bird_ipam",
        "routes of interfaces are the kernel's: BIRD 1.6 gave it none of them",
        r"filter calico_kernel_programming \{\n",
        r"\g<0>  if ( source = RTS_DEVICE ) then { reject; }\n",
    ),
    _rewrite("bird", "the interfaces' channel", r"protocol direct \{", r"protocol direct {\n  ipv4;"),
    _rewrite(
        "bird_aggr", "the channel of static routes", r"protocol static \{", r"protocol static {\n  ipv4;"
    ),
    _rewrite(
        "bird",
        "every session's channel",
        r"  gateway recursive;[^\n]*\n  add paths on;\n",
        r"  ipv4 {\n    gateway recursive;\n    add paths on;\n  };\n",
    ),
    _rewrite(
        "bird",
        "a channel of the mesh",
        r"(  import all;  +#.*?\n  export filter \{\n.*?\n  \};[^\n]*\n)",
        r"  ipv4 {\n\1  };\n",
    ),
    _rewrite(
        "bird",
        "a peer's channel, with what it does to next hops",
        r"(  import filter \{\n.*?\n  export filter \{\n.*?\n  \};[^\n]*\n)(.*?)" + _NEXT_HOP,
        r"  ipv4 {\n\1\g<hops>  };\n\2",
        count=4,
    ),
    _rewrite(
        "bird",
        "the port that is listened at is each session's own",
        r"\{\{- if or \(ne \$listen_address[^\n]*\nlisten bgp[^\n]*\n\{\{- end\}\}\n",
        "",
    ),
    _rewrite("bird", "so is the address", r'print " address " \$node_ip', r'print " " $node_ip'),
    _rewrite(
        "bird",
        "where a session begins",
        r"  local as \{\{\$node_as_num\}\};",
        r"  local{{$listen_address}}{{$listen_port}} as {{$node_as_num}};"
        r'{{if ne $listen_address ""}}\n  strict bind on;{{end}}',
    ),
    _rewrite("bird_ipam", "no IPIP, no tunnels", r'krt_tunnel = "[^"]*";', "", count=4),
]


def write_templates(source: Path, target: Path) -> None:
    """Write the templates for IPv4; the lab has no IPv6.

    Raises:
        ToolchainError: They are not those that the rewrites were made for.
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
            f"{template}: {rewrite.why}: found {found} times where there were {rewrite.count}; "
            f"read the template and adapt {Path(__file__).name}"
        )
    return written

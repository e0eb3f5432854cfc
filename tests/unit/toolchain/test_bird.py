"""confd's templates: rewritten for BIRD 2, or an error where they are not as expected."""

from pathlib import Path

import pytest

from toolchain import bird
from toolchain.errors import ToolchainError

PEER = """\
protocol bgp Node_{{$id}} from bgp_template {
  import filter {
    accept;
  };
  export filter {
    calico_export_to_bgp_peers(true);
    reject;
  };  # Only want to export routes for workloads.
{{- if $data.password}}
  password "{{$data.password}}";
{{- end}}
{{- if and (ne $data.as_num $effective_node_as_num) ($data.keep_next_hop)}}
  next hop keep;
{{- end}}
{{- if eq $data.next_hop_mode "Self"}}
  next hop self;
{{- end}}
{{- if $data.passive_mode}}
  passive on;
{{- end}}
}
"""
PEER_2 = """\
protocol bgp Node_{{$id}} from bgp_template {
  ipv4 {
  import filter {
    accept;
  };
  export filter {
    calico_export_to_bgp_peers(true);
    reject;
  };  # Only want to export routes for workloads.
{{- if and (ne $data.as_num $effective_node_as_num) ($data.keep_next_hop)}}
  next hop keep;
{{- end}}
{{- if eq $data.next_hop_mode "Self"}}
  next hop self;
{{- end}}
  };
{{- if $data.password}}
  password "{{$data.password}}";
{{- end}}
{{- if $data.passive_mode}}
  passive on;
{{- end}}
}
"""
TEMPLATES = {
    "bird": (
        """\
{{- if and (eq $bind_mode "NodeIP") (ne $node_ip "")}}
{{- $listen_address = print " address " $node_ip}}
{{- end}}
{{- if or (ne $listen_address "") (ne $listen_port "")}}
listen bgp{{$listen_address}}{{$listen_port}};
{{- end}}
protocol kernel {
  learn;
  import all;
  export filter calico_kernel_programming; # Default is export none
  merge paths on;
}
protocol direct {
  interface "*";
}
template bgp bgp_template {
  local as {{$node_as_num}};
  gateway recursive; # This should be the default, but just in case.
  add paths on;
  graceful restart;
}
protocol bgp Mesh_{{$id}} from bgp_template {
  import all;        # Import all routes
                     # topology is
  export filter {
    reject;
  };  # Only want to export routes for workloads.
  passive on;
}
"""
        + 4 * PEER,
        """\
{{- if and (eq $bind_mode "NodeIP") (ne $node_ip "")}}
{{- $listen_address = print " " $node_ip}}
{{- end}}
protocol kernel {
  learn;
  ipv4 {
  import all;
  export filter calico_kernel_programming; # Default is export none
  };
  merge paths on;
}
protocol direct {
  ipv4;
  interface "*";
}
template bgp bgp_template {
  local{{$listen_address}}{{$listen_port}} as {{$node_as_num}};{{if ne $listen_address ""}}
  strict bind on;{{end}}
  ipv4 {
    gateway recursive;
    add paths on;
  };
  graceful restart;
}
protocol bgp Mesh_{{$id}} from bgp_template {
  ipv4 {
  import all;        # Import all routes
                     # topology is
  export filter {
    reject;
  };  # Only want to export routes for workloads.
  };
  passive on;
}
"""
        + 4 * PEER_2,
    ),
    "bird_aggr": ("protocol static {\n  route x;\n}\n", "protocol static {\n  ipv4;\n  route x;\n}\n"),
    "bird_ipam": (
        "filter calico_kernel_programming {\n"
        + 4 * '  krt_tunnel = "{{$data.ipip}}";  {{- /* IPIP */}}\n  accept;\n',
        "filter calico_kernel_programming {\n  if ( source = RTS_DEVICE ) then { reject; }\n"
        + 4 * "    {{- /* IPIP */}}\n  accept;\n",
    ),
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (tmp_path / "target").mkdir()
    for name, (text, _) in TEMPLATES.items():
        (folder / f"{name}.cfg.template").write_text(text)
    (folder / "bird6.cfg.template").write_text("not for confd")
    return folder


def test_write_templates(source: Path, tmp_path: Path) -> None:
    bird.write_templates(source, tmp_path / "target")
    written = {file.name: file.read_text() for file in (tmp_path / "target").iterdir()}
    assert written == {f"{name}.cfg.template": text for name, (_, text) in TEMPLATES.items()}


@pytest.mark.parametrize("rewrite", bird.REWRITES, ids=lambda rewrite: rewrite.why)
def test_write_templates_with_an_unexpected_template(
    source: Path, tmp_path: Path, rewrite: bird.Rewrite
) -> None:
    template = source / rewrite.template
    template.write_text(rewrite.pattern.sub("", template.read_text(), count=1))
    with pytest.raises(
        ToolchainError, match=rf"{rewrite.why}: the pattern matches \d times instead of \d; next"
    ):
        bird.write_templates(source, tmp_path / "target")

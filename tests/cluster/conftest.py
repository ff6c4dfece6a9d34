from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hosts import HOUSE, Hosts
from on_hosts import SPACE, TOKEN


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    """A head, two workers, and a laptop from which they are used; `cluster.yaml` describes them to Ray."""
    with Hosts(tmp_path, ["laptop", "head", "one", "two"], {"RAY_USAGE_STATS_ENABLED": "0"}) as made:
        (made.shared / "space.yaml").write_text(SPACE)
        described = yaml.safe_load((HOUSE / "cluster" / "local.yaml").read_text())
        described["provider"] |= {"head_ip": made.address["head"]}
        described["provider"]["worker_ips"] = [made.address["one"], made.address["two"]]
        described["auth"] = {"ssh_user": "root", "ssh_private_key": "~/.ssh-key"}
        described["setup_commands"] = described["setup_commands"][-1:]  # what is installed there is the machine's
        described["file_mounts"].pop("~/convscout")
        described["worker_start_ray_commands"][-1] += " --num-cpus=1"
        (made.shared / "cluster.yaml").write_text(yaml.safe_dump(described))
        made.run("laptop", f"mkdir -p ~/.ray && echo {TOKEN} > ~/.ray/auth_token")
        yield made

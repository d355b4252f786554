"""Compare the speed of `tipsseg label` on images in other places with that on files, in one run.

    python tests/benchmarks/inputs.py
    python tests/benchmarks/inputs.py --images 200 --rounds 5

Draws photographs of 640 x 480 pixels (JPEG), and labels them with `tiny` from a folder, a tar, a zip, a Parquet file, and an S3
server on 127.0.0.1 (moto), in turn. Prints images per second of each over those of the folder: medians of the rounds. Each run is a
process; its time for one image, which is that of loading the model and the client of S3, is subtracted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

from endtoend import draw
from models import machine

SETTINGS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "key", "AWS_DEFAULT_REGION": "us-east-1"}

#: A server in a process of its own: argument 1 is the port, 2 the folder to put into the bucket.
SERVER = """
import boto3, logging, pathlib, sys, time
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").disabled = True
ThreadedMotoServer(ip_address="127.0.0.1", port=int(sys.argv[1])).start()
client = boto3.client("s3")
client.create_bucket(Bucket="bucket")
for path in sorted(pathlib.Path(sys.argv[2]).iterdir()):
    client.put_object(Bucket="bucket", Key=f"in/{path.name}", Body=path.read_bytes())
print("ready", flush=True)
time.sleep(3600)
"""


def label(source: str | Path, out: Path, environment: dict[str, str]) -> float:
    """Label a source and return the seconds that it took."""
    command = [sys.executable, "-m", "tipsseg", "label", str(source), "-m", "tiny", "-c", "car,road,tree"]
    began = time.monotonic()
    subprocess.run(
        [*command, "-f", "png", "-q", "-o", str(out)], check=True, env=environment, stdout=subprocess.DEVNULL
    )
    return time.monotonic() - began


def write_sources(folder: Path, images: int) -> dict[str, Path]:
    """Draw the images, and pack them."""
    import pyarrow
    from pyarrow.parquet import write_table

    files = folder / "files"
    draw(files, images)
    paths = sorted(files.iterdir())
    with tarfile.open(folder / "shard.tar", "w") as archive, zipfile.ZipFile(folder / "shard.zip", "w") as zipped:
        for path in paths:
            archive.add(path, path.name)
            zipped.write(path, path.name)
    rows = [{"bytes": path.read_bytes(), "path": path.name} for path in paths]
    write_table(pyarrow.table({"image": rows}), folder / "rows.parquet", row_group_size=100)
    return {"tar": folder / "shard.tar", "zip": folder / "shard.zip", "Parquet": folder / "rows.parquet"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--port", type=int, default=5599)
    given = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources: dict[str, str | Path] = {
            "files": folder / "files",
            **write_sources(folder, given.images),
            "S3": "s3://bucket/in/",
        }
        one = folder / "one"
        draw(one, 1)
        environment = {**os.environ, **SETTINGS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{given.port}"}
        command = [sys.executable, "-c", SERVER, str(given.port), str(folder / "files")]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
            try:
                assert server.stdout is not None
                assert any(line == b"ready\n" for line in server.stdout)
                rates: dict[str, list[float]] = {name: [] for name in sources}
                for turn in range(given.rounds):
                    starts = {
                        kind: label(place, folder / f"one-{turn}-{kind}", environment)
                        for kind, place in (("files", one), ("S3", "s3://bucket/in/0000.jpg"))
                    }
                    for kind, source in sources.items():
                        seconds = label(source, folder / f"out-{turn}-{kind}", environment) - starts.get(
                            kind, starts["files"]
                        )
                        rates[kind].append((given.images - 1) / seconds)
                for kind, found in rates.items():
                    ratios = [rate / base for rate, base in zip(found, rates["files"], strict=True)]
                    print(
                        f"{kind:8} {statistics.median(found):6.1f} images/s   {statistics.median(ratios):5.2f} of files"
                    )
            finally:
                server.kill()


if __name__ == "__main__":
    main()

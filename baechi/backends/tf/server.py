"""One worker of a plan: a TensorFlow server with the memory of one device. Started by `baechi.backends.tf.servers`."""

import json
import os
import sys
import threading

__all__ = ["main"]


def main() -> None:
    """Serve until whoever started this process is gone: it holds the other end of stdin."""
    cluster, task, threads = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()  # before an import that takes seconds
    import tensorflow as tf

    config = tf.compat.v1.ConfigProto(
        device_count={"CPU": 1}, intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads
    )
    spec = tf.train.ClusterSpec({"worker": cluster})
    server = tf.distribute.Server(spec, job_name="worker", task_index=task, protocol="grpc", config=config)
    print("ready", flush=True)
    server.join()


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()

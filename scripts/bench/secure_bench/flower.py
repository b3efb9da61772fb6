"""Flower's own SecAgg+ code, stage by stage, without a network: prints JSON. Runs in an environment with flwr.

The client's stages and the server's unmasking are Flower's functions, unaltered; what carries messages is ours, and is
not timed.
"""

import importlib
import json
import sys
import time
from types import SimpleNamespace

import flwr
import numpy as np
from flwr.common import bytes_to_ndarray, ndarrays_to_parameters
from flwr.common.secure_aggregation.ndarrays_arithmetic import parameters_addition, parameters_mod
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD
from flwr.server.workflow.constant import Key as WorkflowKey
from flwr.server.workflow.secure_aggregation.secaggplus_workflow import SecAggPlusWorkflow, WorkflowState
from flwr.supercore.task_identity import TaskIdentity
from timing import timed

# the package's name for it is the function inside
mod = importlib.import_module("flwr.client.mod.secure_aggregation.secaggplus_mod")

# messages are stamped with these
TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1

CLIPPING, TARGET, MODULUS = 8.0, 2**22, 2**32


def round_of(clients, dimension, threshold, dropped):
    """Seconds of CPU by stage, bytes of an upload, and how far the mean is off."""
    vectors = np.random.default_rng(0).normal(0, 0.1, (clients, dimension)).astype(np.float32)
    ids, spent = list(range(1, clients + 1)), dict.fromkeys(("setup", "shares", "masking", "unmasking"), 0.0)
    setup = {
        Key.SAMPLE_NUMBER: clients,
        Key.SHARE_NUMBER: clients,
        Key.THRESHOLD: threshold,
        Key.CLIPPING_RANGE: CLIPPING,
        Key.TARGET_RANGE: TARGET,
        Key.MOD_RANGE: MODULUS,
        Key.MAX_WEIGHT: 1.0,
    }
    states, keys = {nid: mod.SecAggPlusState(nid=nid) for nid in ids}, {}
    for nid in ids:
        states[nid].nid = nid
        answer, seconds = timed(mod._setup, states[nid], setup)
        keys[nid] = (answer[Key.PUBLIC_KEY_1], answer[Key.PUBLIC_KEY_2])
        spent["setup"] += seconds
    boxes = {nid: ([], []) for nid in ids}
    for nid in ids:
        answer, seconds = timed(mod._share_keys, states[nid], {str(each): keys[each] for each in ids})
        spent["shares"] += seconds
        for to, ciphertext in zip(answer[Key.DESTINATION_LIST], answer[Key.CIPHERTEXT_LIST], strict=True):
            boxes[to][0].append(nid)
            boxes[to][1].append(ciphertext)
    active, total, upload = ids[: clients - dropped], None, 0
    for nid in active:
        box = {Key.SOURCE_LIST: boxes[nid][0], Key.CIPHERTEXT_LIST: boxes[nid][1]}
        parameters = ndarrays_to_parameters([vectors[nid - 1]])
        answer, seconds = timed(mod._collect_masked_vectors, states[nid], box, 1, parameters)
        spent["masking"] += seconds
        upload = sum(len(part) for part in answer[Key.MASKED_PARAMETERS])
        masked = [bytes_to_ndarray(part) for part in answer[Key.MASKED_PARAMETERS]]
        total = masked if total is None else parameters_addition(total, masked)
    found, seconds = unmasked(states, keys, ids, active, parameters_mod(total, MODULUS), threshold)
    spent["unmasking"] = seconds
    error = float(np.abs(found - vectors[: len(active)].astype(np.float64).mean(axis=0)).max())
    return {"cpu_seconds": spent, "upload_bytes": upload, "largest_error": error}


def unmasked(states, keys, ids, active, total, threshold):
    """Flower's `unmask_stage` on the sum, with a grid that hands requests to the clients, untimed."""
    asked = 0.0

    def send_and_receive(messages, timeout):  # noqa: ARG001
        nonlocal asked
        started, replies = time.process_time(), []
        for message in messages:
            nid = message.metadata.dst_node_id
            answer = mod._unmask(states[nid], message.content.config_records[RECORD_KEY_CONFIGS])
            content = SimpleNamespace(config_records={RECORD_KEY_CONFIGS: answer})
            metadata = SimpleNamespace(src_node_id=nid)
            replies.append(SimpleNamespace(content=content, metadata=metadata, has_error=lambda: False))
        asked += time.process_time() - started
        return replies

    found = []

    def aggregate_fit(number, results, failures):  # noqa: ARG001
        found.append(flwr.common.parameters_to_ndarrays(results[0][1].parameters)[0])
        return None, {}

    state = WorkflowState(
        sampled_node_ids=set(ids),
        active_node_ids=set(active),
        threshold=threshold,
        clipping_range=CLIPPING,
        quantization_range=TARGET,
        mod_range=MODULUS,
        nid_to_neighbours={nid: set(ids) for nid in ids},
        nid_to_publickeys={nid: list(pair) for nid, pair in keys.items()},
        aggregate_ndarrays=total,
        legacy_results=[(None, SimpleNamespace(parameters=None))],
    )
    context = SimpleNamespace(
        state=SimpleNamespace(config_records={MAIN_CONFIGS_RECORD: {WorkflowKey.CURRENT_ROUND: 1}}),
        strategy=SimpleNamespace(aggregate_fit=aggregate_fit),
    )
    workflow = SecAggPlusWorkflow(len(ids), threshold, clipping_range=CLIPPING, quantization_range=TARGET)
    _, seconds = timed(workflow.unmask_stage, SimpleNamespace(send_and_receive=send_and_receive), context, state)
    return found[0], seconds - asked


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:5]]
    print(json.dumps({"version": flwr.__version__, **round_of(*numbers)}))

"""How each engine loads a network folder: `LOADERS[name](folder, threads)`, in the environment that has the engine.

Every loader forces float32 but `openvino_bf16`, and sets its image once, so that a run reads no file. Libraries are
imported where they are used, since no environment has them all.
"""

import importlib.metadata
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from peers.network import read


class Engine(NamedTuple):
    """A loaded network.

    Attributes:
        version: of the library that runs it.
        run: one inference of the folder's image -> the output.
    """

    version: str
    run: Callable[[], np.ndarray]


def image_of(folder: Path) -> np.ndarray:
    """The folder's image, `(1, h, w, c)`."""
    return np.load(folder / "input.npy")


def channels_first(image: np.ndarray) -> np.ndarray:
    """The same image as `(1, c, h, w)`, contiguous."""
    return np.ascontiguousarray(image.transpose(0, 3, 1, 2)) if image.ndim == 4 else image


def numpy_reference(folder: Path, threads: int) -> Engine:
    """Float64 NumPy: for tests of the protocol, needs no engine."""
    from peers.network import evaluate

    network, image = read(folder), image_of(folder)
    return Engine(f"{np.__version__}, {threads} thread(s)", lambda: evaluate(network, image))


def onnxruntime(folder: Path, threads: int) -> Engine:
    """ONNX Runtime's CPU provider, sequential, all graph optimizations."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = ort.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: channels_first(image_of(folder))}
    return Engine(ort.__version__, lambda: session.run(None, feed)[0])


def _openvino(folder: Path, threads: int, precision: str) -> Engine:
    import openvino as ov

    core = ov.Core()
    settings = {
        # the default is bfloat16 on processors with matrix units
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        # the parent pins the process
        "ENABLE_CPU_PINNING": False,
    }
    compiled = core.compile_model(core.read_model(folder / "model.onnx"), "CPU", settings)
    request = compiled.create_infer_request()
    request.set_input_tensor(ov.Tensor(channels_first(image_of(folder))))
    output = request.get_output_tensor(0)

    def run() -> np.ndarray:
        request.infer()
        return output.data

    return Engine(ov.__version__.split("-")[0], run)


def openvino(folder: Path, threads: int) -> Engine:
    """OpenVINO's CPU plugin in float32."""
    return _openvino(folder, threads, "f32")


def openvino_bf16(folder: Path, threads: int) -> Engine:
    """OpenVINO's CPU plugin with bfloat16 products: reduced precision, a row of its own."""
    return _openvino(folder, threads, "bf16")


def litert(folder: Path, threads: int) -> Engine:
    """LiteRT with its default delegate, XNNPACK."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(folder / "model.tflite"), num_threads=threads)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image_of(folder))
    output = interpreter.get_output_details()[0]["index"]

    def run() -> np.ndarray:
        interpreter.invoke()
        return interpreter.get_tensor(output)

    return Engine(importlib.metadata.version("ai-edge-litert"), run)


def mnn(folder: Path, threads: int) -> Engine:
    """MNN's CPU backend, precision "high" (float32), a session without resizing."""
    import MNN

    interpreter = MNN.Interpreter(str(folder / "model.mnn"))
    session = interpreter.createSession({"backend": "CPU", "precision": "high", "numThread": threads})
    image = channels_first(image_of(folder))
    given = MNN.Tensor(image.shape, MNN.Halide_Type_Float, image, MNN.Tensor_DimensionType_Caffe)
    entry = interpreter.getSessionInput(session)
    result = interpreter.getSessionOutput(session)
    answer = MNN.Tensor(
        result.getShape(),
        MNN.Halide_Type_Float,
        np.zeros(result.getShape(), np.float32),
        MNN.Tensor_DimensionType_Caffe,
    )

    def run() -> np.ndarray:
        # each time: MNN plans its memory so that later layers may overwrite the input
        entry.copyFrom(given)
        interpreter.runSession(session)
        result.copyToHostTensor(answer)
        return answer.getNumpyData()

    return Engine(importlib.metadata.version("MNN"), run)


def ncnn(folder: Path, threads: int) -> Engine:
    """Ncnn on the CPU, with float32 storage and arithmetic (the default stores bfloat16 or float16)."""
    import ncnn as library

    net = library.Net()
    options = net.opt
    options.num_threads = threads
    options.use_vulkan_compute = False
    for name in ("use_bf16_storage", "use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_packed"):
        if hasattr(options, name):
            setattr(options, name, False)
    if net.load_param(str(folder / "model.ncnn.param")) or net.load_model(str(folder / "model.ncnn.bin")):
        raise RuntimeError("ncnn does not load the files that pnnx wrote")
    # no batch axis; a Mat borrows the array's memory without keeping it alive, so it is cloned while that has a name
    image = channels_first(image_of(folder))[0]
    given = library.Mat(image).clone()

    def run() -> np.ndarray:
        with net.create_extractor() as extractor:
            extractor.input("in0", given)
            _, result = extractor.extract("out0")
            return np.array(result)

    return Engine(library.__version__, run)


def _torch(folder: Path, threads: int, compiled: bool) -> Engine:
    import torch

    from peers.torch_model import Module

    torch.set_num_threads(threads)
    module = Module(read(folder)).eval().to(memory_format=torch.channels_last)
    image = torch.from_numpy(channels_first(image_of(folder)))
    if image.ndim == 4:
        image = image.to(memory_format=torch.channels_last)
    if compiled:
        import torch._inductor.config as inductor

        # weights become constants, laid out once as the kernels want them
        inductor.freezing = True
        module = torch.compile(module)

    def run() -> np.ndarray:
        with torch.no_grad():
            return module(image).numpy()

    return Engine(torch.__version__, run)


def torch(folder: Path, threads: int) -> Engine:
    """PyTorch as it stands, channels last."""
    return _torch(folder, threads, compiled=False)


def torch_compile(folder: Path, threads: int) -> Engine:
    """`torch.compile` with frozen weights; wants a C++ compiler."""
    return _torch(folder, threads, compiled=True)


def deepsparse(folder: Path, threads: int) -> Engine:
    """DeepSparse, which makes use of zeros among the weights; its license allows development and testing only."""
    # it reports its use to its makers unless told not to
    os.environ["NM_DISABLE_ANALYTICS"] = "1"
    from deepsparse import Engine as Compiled

    compiled = Compiled(str(folder / "model.onnx"), batch_size=1, num_cores=threads)
    feed = [channels_first(image_of(folder))]
    return Engine(importlib.metadata.version("deepsparse"), lambda: compiled.run(feed)[0])


def xla(folder: Path, threads: int) -> Engine:
    """`jax.jit`, channels last; threads are as many as the process may use cores."""
    import jax

    from peers.xla_model import function

    if len(os.sched_getaffinity(0)) != threads:
        raise RuntimeError(f"XLA takes a thread for each core: the process must be pinned to {threads} of them")
    jax.config.update("jax_platforms", "cpu")
    weights, apply = function(read(folder))
    weights, image = jax.device_put(weights), jax.device_put(image_of(folder))
    run = jax.jit(apply).lower(weights, image).compile()
    return Engine(jax.__version__, lambda: np.asarray(run(weights, image)))


def iree(folder: Path, threads: int) -> Engine:
    """IREE's CPU compiler on the module that JAX writes, channels last, in its highest optimization level."""
    import iree.compiler as compiler
    import iree.runtime as runtime
    import jax

    from peers.xla_model import function

    jax.config.update("jax_platforms", "cpu")
    weights, apply = function(read(folder))
    image = image_of(folder)
    leaves, tree = jax.tree.flatten((weights, image))
    module = jax.jit(lambda *flat: apply(*jax.tree.unflatten(tree, flat))).lower(*leaves).as_text()
    program = compiler.compile_str(
        module,
        input_type="stablehlo",
        target_backends=["llvm-cpu"],
        extra_args=["--iree-llvmcpu-target-cpu=host", "--iree-opt-level=O3"],
    )
    context = runtime.SystemContext(config=runtime.Config("local-sync" if threads == 1 else "local-task"))
    loaded = runtime.VmModule.copy_buffer(context.instance, program)
    context.add_vm_module(loaded)
    main = context.modules[loaded.name].main
    stored = [runtime.asdevicearray(context.config.device, leaf) for leaf in leaves]
    return Engine(importlib.metadata.version("iree-base-compiler"), lambda: np.asarray(main(*stored)))


LOADERS: dict[str, Callable[[Path, int], Engine]] = {
    "numpy": numpy_reference,
    "onnxruntime": onnxruntime,
    "openvino": openvino,
    "openvino_bf16": openvino_bf16,
    "litert": litert,
    "mnn": mnn,
    "ncnn": ncnn,
    "torch": torch,
    "torch_compile": torch_compile,
    "deepsparse": deepsparse,
    "xla": xla,
    "iree": iree,
}

"""A plugin's process: go-plugin's handshake and services, and dno's, over gRPC with mutual TLS."""

import base64
import contextlib
import os
import queue
import signal
import sys
import tempfile
import threading
import time
import traceback
from concurrent import futures

import grpc

from . import convert, tls, types, wire

_COOKIE = ("DNO_PLUGIN_COOKIE", "5f0c6ba1-direct-nash-optimization")
_VERSION = 1  # of the protocol
_LIMITS = [("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20)]
_PACKAGE = "dno.plugin.v1."


def serve(plugin):
    """Serves a plugin until the host tells it to stop. Run by hand it says what it is, and exits with 1."""
    if os.environ.get(_COOKIE[0]) != _COOKIE[1]:
        _by_hand(plugin)
        sys.exit(1)
    offered = os.environ.get("PLUGIN_PROTOCOL_VERSIONS", "")
    if str(_VERSION) not in offered.split(","):
        print(f"dno offers version {offered} of the plugin protocol, this plugin speaks {_VERSION}", file=sys.stderr)
        # The host reads the handshake all the same, and names both versions.
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the host's to handle
    threading.Thread(target=_exit_with_parent, args=(os.getppid(),), daemon=True).start()

    # Standard output belongs to the handshake; what the plugin prints goes to standard error.
    handshake = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.stdout.flush()  # what was printed before and is still in Python's buffer
    sys.stdout = sys.stderr  # which keeps nothing back

    server = _Server(plugin)
    path, certificate = server.listen()
    handshake.write(f"1|{_VERSION}|unix|{path}|grpc|{certificate}\n")
    handshake.flush()
    server.wait()
    with contextlib.suppress(OSError):
        os.unlink(path)
    sys.stderr.flush()
    os._exit(0)  # streams of the host may still be open, and nobody waits for them


def _exit_with_parent(parent):
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _by_hand(plugin):
    m = plugin.manifest
    print(f"{m.name} {m.version} is a plugin of dno ({plugin.kind}): {m.help}", file=sys.stderr)
    print(f"It is not run by itself: dno starts it. In a script:\n\n  {plugin.kind} = {{ \"{m.name}\" }}", file=sys.stderr)
    for s in m.settings:
        note = " (required)" if s.required else "" if s.default is None else f" (default {s.default})"
        print(f"  {s.name:<18} {s.type:<7} {s.help}{note}", file=sys.stderr)


class _Server:
    def __init__(self, plugin):
        self.plugin = plugin
        self.stopping = threading.Event()
        self.hosts = _Hosts()
        concurrency = max(1, plugin.manifest.concurrency) if plugin.kind == "oracle" else 1
        # A thread for each call, one for the broker's stream, the others for what must always be answered: health, shutdown.
        self.grpc = grpc.server(futures.ThreadPoolExecutor(concurrency + 4), options=_LIMITS)

    def listen(self):
        """Starts to serve. Returns the socket's path and the certificate as the handshake writes it."""
        folder = os.environ.get("PLUGIN_UNIX_SOCKET_DIR") or tempfile.gettempdir()
        path = os.path.join(folder, f"dno-{os.getpid()}")
        host = os.environ.get("PLUGIN_CLIENT_CERT", "").encode()
        certificate = ""
        for service, methods in self._services().items():
            self.grpc.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
        if host:
            key, own, der = tls.self_signed()
            credentials = grpc.ssl_server_credentials([(key, own)], host, require_client_auth=True)
            self.hosts.credentials = grpc.ssl_channel_credentials(host, key, own)
            self.grpc.add_secure_port("unix:" + path, credentials)
            certificate = base64.b64encode(der).decode().rstrip("=")
        else:
            self.grpc.add_insecure_port("unix:" + path)
        self.grpc.start()
        return path, certificate

    def wait(self):
        self.stopping.wait()
        try:
            self.plugin.close()
        except BaseException:  # the process ends all the same
            traceback.print_exc()
        self.grpc.stop(0).wait(1)

    def _services(self):
        kind = {
            "oracle": {"Judge": self._unary("Judge", self._judge)},
            "loss": {"Evaluate": self._unary("Evaluate", self._evaluate)},
            "sampler": {"Sample": self._unary("Sample", self._sample)},
        }[self.plugin.kind]
        return {
            _PACKAGE + "Plugin": {
                "Manifest": self._unary("Manifest", lambda _: convert.from_manifest(self.plugin.kind, self.plugin.manifest)),
                "Configure": self._unary("Configure", self._configure),
            },
            _PACKAGE + self.plugin.kind.capitalize(): kind,
            "grpc.health.v1.Health": {"Check": _handler(
                lambda *_: wire.encode("HealthCheckResponse", {"status": 1}))},  # SERVING
            "plugin.GRPCController": {"Shutdown": _handler(self._shutdown)},
            "plugin.GRPCBroker": {"StartStream": grpc.stream_stream_rpc_method_handler(self.hosts.listen)},
        }

    def _shutdown(self, _, context):
        context.add_callback(self.stopping.set)  # when the answer is sent
        return b""

    def _unary(self, method, call):
        """Wraps a method of dno's: bytes in, bytes out, errors as dno reads them."""

        def handle(data, context):
            try:
                return wire.encode(method + "Response", call(wire.decode(method + "Request", data)))
            except types.Error as e:
                error = {"code": e.code, "hint": e.hint}, str(e)
            except wire.WireError as e:
                error = {"code": types.PLUGIN}, str(e)
            except BaseException as e:  # any fault of the plugin's is an answer, sys.exit() too: gRPC would give none
                traceback.print_exc()
                error = {}, f"{type(e).__name__}: {e}"
            _abort(context, *error)

        return _handler(handle)

    def _configure(self, m):
        self.plugin.configure(convert.settings(m))
        return {}

    def _judge(self, m):
        return convert.from_verdicts(self.plugin.judge(convert.comparisons(m)))

    def _evaluate(self, m):
        return convert.from_loss_result(self.plugin.evaluate(convert.loss_batch(m)))

    def _sample(self, m):
        with contextlib.ExitStack() as stack:
            generator = None
            if m["generator"]:
                generator = _Generator(stack.enter_context(self.hosts.dial(m["generator"])))
            return convert.from_completions(self.plugin.sample(convert.sample_request(m), generator))


def _handler(f):
    return grpc.unary_unary_rpc_method_handler(f)


def _abort(context, detail, text):
    text = text.encode("utf-8", "replace").decode()
    details = [{"type_url": "type.googleapis.com/" + _PACKAGE + "Error", "value": wire.encode("Error", detail)}]
    status = wire.encode("Status", {"code": grpc.StatusCode.UNKNOWN.value[0], "message": text, "details": details})
    context.set_trailing_metadata((("grpc-status-details-bin", status),))
    context.abort(grpc.StatusCode.UNKNOWN, text)


class _Hosts:
    """Where the host serves: it announces each service's socket on the broker's stream."""

    _PATIENCE = 5  # seconds between a request that names a service and its announcement

    def __init__(self):
        self.credentials = None
        self.lock = threading.Lock()
        self.announced = {}

    def _slot(self, service):
        with self.lock:
            return self.announced.setdefault(service, queue.Queue())

    def listen(self, requests, _):
        for data in requests:
            info = wire.decode("ConnInfo", data)
            self._slot(info["service_id"]).put(info)
        return iter(())

    @contextlib.contextmanager
    def dial(self, service):
        try:
            info = self._slot(service).get(timeout=self._PATIENCE)
        except queue.Empty:
            raise types.Error(types.PLUGIN, f"the host does not say where it serves its generator (service {service})") from None
        finally:
            with self.lock:
                self.announced.pop(service, None)
        address = ("unix:" if info["network"] == "unix" else "") + info["address"]
        if self.credentials:
            named = [("grpc.ssl_target_name_override", "localhost"), ("grpc.default_authority", "localhost")]
            channel = grpc.secure_channel(address, self.credentials, options=_LIMITS + named)
        else:
            channel = grpc.insecure_channel(address, options=_LIMITS)
        with channel:
            yield channel


class _Generator:
    """The policy in training, as the host serves it."""

    def __init__(self, channel):
        self.call = channel.unary_unary("/" + _PACKAGE + "Generator/Generate")

    def generate(self, prompts, seeds, options):
        request = wire.encode("GenerateRequest", convert.from_generate(prompts, seeds, options))
        try:
            return convert.completions(wire.decode("GenerateResponse", self.call(request)))
        except grpc.RpcError as e:
            raise _from_status(e) from e


def _from_status(e):
    """Returns the error that the host's status stands for, with its code and hint."""
    for key, value in e.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in wire.decode("Status", value)["details"]:
                if detail["type_url"].endswith("/" + _PACKAGE + "Error"):
                    inner = wire.decode("Error", detail["value"])
                    return types.Error(inner["code"] or types.INTERNAL, e.details(), inner["hint"])
    return types.Error(types.PLUGIN, f"ask the host's generator: {e.details()}")

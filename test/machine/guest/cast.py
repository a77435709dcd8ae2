"""
Many clients of luod in one process, each on a connection and a thread of its own:

    cast.py SOCKET ROLES

ROLES is a JSON list. A role has

    id          and `bare`: it knows no words but luo-agent's
    does        "keep": subscribes, and preserves whenever it is asked (usual)
                "claim": claims, looks whether all is there, and ends
                "carry": claims, and keeps what it has got for the next kernel
    parts       of its sessions' names (usually one session, "")
    kib, files  of each file, and the files of a session
    required, deadline_ms
    fates       what it does at its first, second, … update; the last one again and again:
                ready, late, abort, die (its connection), crash (the process),
                wait:PATH (is ready when there is such a file)
    ending      of a claim: "finish" (usual), "hold" until it is killed, "crash" and claim again

What a file must have in it follows from the id, the part and the token. Each line that it says
begins with "cast", a word for what happened, and the id.
"""
import fcntl
import hashlib
import json
import mmap
import os
import signal
import socket
import struct
import sys
import threading
import time

PRESERVE_FD = 0xBA40
RETRIEVE_FD = 0xBA41
FINISH = 0xBA42
LOOK_SECONDS = 0.01
PATIENCE_SECONDS = 60

saying = threading.Lock()


def say(*words):
    with saying:
        print("cast", *words, flush=True)


def wait_for(what, look):
    """Looks until it is true: neither a socket that comes nor a free file announces itself."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not look():
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(LOOK_SECONDS)


class Wire:
    """A connection to luod."""

    def __init__(self, path, bare):
        self.bare = bare
        self.lines = b""
        self.descriptors = []
        self.requests = 0
        wait_for("luod", lambda: self.connect(path))
        if not bare:
            self.ask({"cmd": "HELLO", "protocol": 1, "program": "cast"})

    def connect(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.socket.connect(path)
            return True
        except OSError:
            self.socket.close()
            return False

    def send(self, words):
        try:
            self.socket.sendall(json.dumps(words).encode() + b"\n")
        except OSError:
            pass  # The end is seen by whoever reads.

    def receive(self):
        """An event and its session; (None, None) at the end of the connection."""
        while b"\n" not in self.lines:
            try:
                data, ancillary, _, _ = self.socket.recvmsg(
                    65536, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC
                )
            except OSError:
                data, ancillary = b"", []
            for level, kind, content in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    self.descriptors.append(struct.unpack("i", content[:4])[0])
            if data == b"":
                return None, None
            self.lines += data
        line, self.lines = self.lines.split(b"\n", 1)
        event = json.loads(line)
        carries = event["event"] in ("START_PRESERVATION", "CLAIMED")
        return event, self.descriptors.pop(0) if carries and self.descriptors else None

    def ask(self, words):
        """Its answer; a bare client's is whatever comes next."""
        self.requests += 1
        number = self.requests
        self.send(words if self.bare else {**words, "request": number})
        while True:
            event, session = self.receive()
            if event is None or self.bare or event.get("request") == number:
                return event, session

    def close(self):
        self.socket.close()


def content(name, part, token, size):
    """Bytes that differ everywhere, and between any two files."""
    seed = b"%s/%s/%d" % (name.encode(), part.encode(), token)
    count = min(4096, size // 32 + 1)
    blocks = (hashlib.sha256(b"%s %d" % (seed, number)).digest() for number in range(count))
    pattern = b"".join(blocks)
    return (pattern * (size // len(pattern) + 1))[:size]


class Client:
    def __init__(self, path, role):
        self.path = path
        self.id = role["id"]
        self.does = role.get("does", "keep")
        self.bare = role.get("bare", False)
        self.parts = role.get("parts", [""])
        self.size = role.get("kib", 64) * 1024
        self.tokens = range(1, role.get("files", 1) + 1)
        self.fates = role.get("fates", ["ready"])
        self.ending = role.get("ending", "finish")
        self.options = {
            word: role[word] for word in ("required", "deadline_ms") if word in role
        }
        self.files = {}
        self.sessions = {}
        self.update = None

    def run(self):
        try:
            if self.does != "keep":
                for part in self.parts:
                    self.claim(part)
            else:
                self.fill()
            if self.does != "claim":
                self.keep()
        except BaseException as error:
            say("failed", self.id, repr(error))
            os._exit(1)

    # Before the kexec.

    def fill(self):
        for part in self.parts:
            for token in self.tokens:
                file = os.memfd_create(f"{self.id}-{token}")
                os.write(file, content(self.id, part, token, self.size))
                self.files[part, token] = file

    def keep(self):
        while True:
            wire = Wire(self.path, self.bare)
            if self.subscribe(wire):
                self.serve(wire)
            wire.close()
            self.give_up("its connection ended")
            if self.fates == []:
                return

    def subscribe(self, wire):
        words = {"cmd": "SUBSCRIBE", "id": self.id}
        if self.bare:
            wire.send(words)
            say("subscribed", self.id)
            return True
        words |= {**self.options, "sessions": self.parts}
        if self.update is not None:
            words["update"] = self.update
        event, _ = wire.ask(words)
        if event is None or event["event"] == "ERROR":
            say("unsubscribed", self.id, json.dumps(event))
            if event is not None:
                self.fates = []
            return False
        say("subscribed", self.id)
        return True

    def serve(self, wire):
        while True:
            event, session = wire.receive()
            if event is None:
                return
            what = event["event"]
            if what == "START_PRESERVATION":
                self.preserve(event, session)
                if len(self.sessions) == len(self.parts) and not self.meet_fate(wire):
                    return
            elif what == "ABORTED":
                say("aborted", self.id, event["reason"])
                self.update = None
                self.give_up(event["reason"])
            elif what == "ERROR":
                say("refused", self.id, json.dumps(event["error"]))
                if self.bare:
                    self.fates = []

    def preserve(self, event, session):
        part = event.get("session", "")
        self.sessions[part] = session
        self.update = event.get("update")
        for token in self.tokens:
            words = struct.pack("IiQ", 16, self.files[part, token], token)
            fcntl.ioctl(session, PRESERVE_FD, words)

    def meet_fate(self, wire):
        """Whether it goes on with this connection."""
        fate = self.fates[0]
        if len(self.fates) > 1:
            self.fates = self.fates[1:]
        say("preserved", self.id, fate)
        if fate == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        if fate == "abort":
            wire.send({"cmd": "ABORT", "reason": "its disk is full"})
        if fate.startswith("wait:"):
            wire.send({"cmd": "PROGRESS", "percent": 50, "detail": "writing"})
            wait_for(fate, lambda: os.path.exists(fate[5:]))
        if fate == "ready" or fate.startswith("wait:"):
            size = self.size * len(self.files)
            wire.send({"cmd": "READY"} if self.bare else {"cmd": "READY", "bytes": size})
            say("ready", self.id)
        return fate != "die"

    def give_up(self, reason):
        """Closes its sessions; then its files must be its own again, and may grow."""
        if self.sessions == {}:
            return
        for session in self.sessions.values():
            os.close(session)
        self.sessions = {}
        for file in self.files.values():
            wait_for(f"a free file, {reason}", lambda: self.grows(file))
        say("free", self.id, reason)

    def grows(self, file):
        try:
            os.ftruncate(file, self.size + 4096)
            os.ftruncate(file, self.size)
            return True
        except PermissionError:
            return False

    # After the kexec.

    def claim(self, part):
        found = False
        name = f"{self.id}/{part}" if part else self.id
        while True:
            wire = Wire(self.path, self.bare)
            words = {"cmd": "CLAIM", "id": self.id}
            event, session = wire.ask(words if part == "" else {**words, "session": part})
            if session is None:
                wire.close()
                if event is None and not self.bare:
                    say("again", name)
                    continue  # luod went away.
                say("settled" if found else "refused", name, json.dumps(event))
                return
            if not found:
                found = self.look(session, part, name)
                if self.ending == "crash":
                    self.ending = "finish"
                    found = False
                    os.close(session)
                    wire.close()
                    say("crashed", name)
                    continue
            if self.ending == "hold":
                say("holds", name)
                threading.Event().wait()
            if self.finish(wire, session, part):
                say("finished", name)
                return
            say("again", name)

    def look(self, session, part, name):
        for token in self.tokens:
            answer = bytearray(struct.pack("IiQ", 16, -1, token))
            fcntl.ioctl(session, RETRIEVE_FD, answer)
            file = struct.unpack("IiQ", answer)[1]
            wanted = content(self.id, part, token, self.size)
            with mmap.mmap(file, self.size, prot=mmap.PROT_READ) as memory:
                is_same = os.fstat(file).st_size == self.size and memory[:] == wanted
            say("found" if is_same else "spoilt", name, token, self.size)
            self.files[part, token] = file
        return True

    def finish(self, wire, session, part):
        """Whether luod has heard it; a bare client has no word for it."""
        fcntl.ioctl(session, FINISH, struct.pack("II", 8, 0))
        os.close(session)
        words = {"cmd": "FINISHED", "id": self.id, "session": part}
        answered = self.bare or wire.ask(words)[0] is not None
        wire.close()
        return answered


if os.environ.get("CAST_IGNORES_SIGTERM"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
path, roles = sys.argv[1], json.loads(sys.argv[2])
threads = [threading.Thread(target=Client(path, role).run) for role in roles]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
say("over", len(threads))

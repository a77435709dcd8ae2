"""
A client in another language that knows only the words of luo-agent. It keeps a table in a memfd,
as a database might:

    bare-client.py before SOCKET ID MEBIBYTES SEED   subscribes, preserves when it is asked
    bare-client.py after SOCKET ID                   claims, and tells the table's SHA-256

It says what it does in lines that begin with "client".
"""
import fcntl
import hashlib
import json
import mmap
import os
import socket
import struct
import sys

PRESERVE_FD = 0xBA40
RETRIEVE_FD = 0xBA41
FINISH = 0xBA42
TOKEN = 7


def say(*words):
    print("client", *words, flush=True)


def connect(path):
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(path)
    return connection


def receive(connection):
    """A line, and the session that came with it."""
    data, ancillary, _, _ = connection.recvmsg(65536, socket.CMSG_SPACE(4))
    session = None
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            (session,) = struct.unpack("i", content[:4])
    return data, session


def table(size, seed):
    """Bytes that differ everywhere: the SHA-256 of each block's number."""
    blocks = (hashlib.sha256(b"%d %d" % (seed, number)).digest() for number in range(4096))
    pattern = b"".join(blocks)
    return (pattern * (size // len(pattern) + 1))[:size]


def tell_hash(what, file):
    size = os.fstat(file).st_size
    with mmap.mmap(file, size, prot=mmap.PROT_READ) as memory:
        say(what, size, hashlib.sha256(memory).hexdigest())


def before(path, name, mebibytes, seed):
    file = os.memfd_create("table")
    content = table(int(mebibytes) * 2**20, int(seed))
    os.write(file, content)
    tell_hash("has", file)
    connection = connect(path)
    connection.sendall(json.dumps({"cmd": "SUBSCRIBE", "id": name}).encode() + b"\n")
    say("subscribed", name)
    data, session = receive(connection)
    if session is None:
        say("ended", data)
        return 3
    fcntl.ioctl(session, PRESERVE_FD, struct.pack("IiQ", 16, file, TOKEN))
    connection.sendall(b'{"cmd":"READY"}\n')
    say("ready", name)
    # Until the kexec, or until the update is aborted: a bare client sees that by this.
    say("ended", connection.recv(65536))
    return 3


def after(path, name):
    connection = connect(path)
    connection.sendall(json.dumps({"cmd": "CLAIM", "id": name}).encode() + b"\n")
    data, session = receive(connection)
    if session is None:
        say("refused", data)
        return 3
    answer = bytearray(struct.pack("IiQ", 16, -1, TOKEN))
    fcntl.ioctl(session, RETRIEVE_FD, answer)
    _, file, _ = struct.unpack("IiQ", answer)
    tell_hash("found", file)
    fcntl.ioctl(session, FINISH, struct.pack("II", 8, 0))
    say("finished", name)
    return 0


sys.exit({"before": before, "after": after}[sys.argv[1]](*sys.argv[2:]))

"""Reads a bundle from stdin and checks what needs no signature, from docs/formats/bundle.md alone.

Standard library only: archive, manifest digests, event hashes, chain and multiproofs. It prints
`name size` per member. It is not a verifier: it knows no keys.
"""

import base64
import hashlib
import io
import json
import sys
import tarfile


def need(holds, what):
    if not holds:
        sys.exit(f"refused: {what}")


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def events(data):
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        body = data[at + 4 : at + 4 + size]
        at += 4 + size + 64
        need(1 <= size <= 65535 and at <= len(data) and body[0] == 1, "a record is no event")
        index, rest = varint(body, 1)
        yield index, body[rest : rest + 32], hashlib.sha256(b"\0" + body).digest()


def root(leaves, size, proof):
    known, width, hashes = dict(leaves), size, iter(proof)
    while width > 1:
        for i in sorted(known):
            if i ^ 1 < width and i ^ 1 not in known:
                known[i ^ 1] = next(hashes)
        up = {}
        for i in known:
            left, right = known[i & ~1], known.get(i | 1)
            up[i // 2] = left if right is None else hashlib.sha256(b"\1" + left + right).digest()
        known, width = up, (width + 1) // 2
    need(next(hashes, None) is None, "a proof has hashes to spare")
    return known[0]


def check_log(members, log):
    text = members[f"{log}/checkpoint"].decode().split("\n\n")[0].split("\n")
    size, wanted = int(text[1]), base64.b64decode(text[2])
    leaves, last = [], None
    for index, prev, leaf in events(members[f"{log}/events"]):
        need(last is None or index > last[0], "events are out of order")
        need(last is None or index != last[0] + 1 or prev == last[1], "the chain is broken")
        last = (index, leaf)
        leaves.append(last)
    raw = members[f"{log}/proof"]
    need(len(raw) % 32 == 0, "a proof is no whole hashes")
    proof = [raw[at : at + 32] for at in range(0, len(raw), 32)]
    need(root(leaves, size, proof) == wanted, f"the events of {log} are not in the checkpoint's tree")


def main():
    data = sys.stdin.buffer.read()
    members = {}
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        for entry in archive:
            plain = entry.isreg() and entry.mode == 0o644 and entry.uid == entry.gid == entry.mtime == 0
            need(plain and entry.name not in members, f"{entry.name} is no plain member")
            members[entry.name] = archive.extractfile(entry).read()
            print(entry.name, entry.size)
    envelope = json.loads(members["manifest.dsse.json"])
    statement = json.loads(base64.b64decode(envelope["payload"]))
    need(statement["predicateType"] == "urn:amc:predicate:bundle:v1", "no manifest of a bundle")
    others = [name for name in members if name != "manifest.dsse.json"]
    need(others == sorted(others), "members are not sorted")
    need([subject["name"] for subject in statement["subject"]] == others, "the manifest names other members")
    for subject in statement["subject"]:
        found = hashlib.sha256(members[subject["name"]]).hexdigest()
        need(found == subject["digest"]["sha256"], f"{subject['name']} was changed")
    for log in ("evidence", "audit"):
        check_log(members, log)


main()

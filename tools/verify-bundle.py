#!/usr/bin/env python3
"""Verifies an .amcbundle with pinned keys, written from docs/formats/ alone.

    verify-bundle.py BUNDLE TRUST_POLICY

It shares no line with the program that wrote the bundle. Needed are Python 3.9, `cryptography`, and
`zstandard` where payloads travel along. It checks the archive, the manifest, every signature, the
chain, the sessions, both trees, the witnesses, the run's entry and seal, configurations and payloads.
It does not compute the score again: that takes the scorer that the report names. It follows keys that
pinned keys name; a revoked witness counts for nothing, and a log that succeeds a pinned one has to be
pinned itself.

Exit 0: authentic. 1: refused, with a finding code. 2: the call is wrong.
"""

import base64
import binascii
import hashlib
import json
import re
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MIB = 1 << 20
MEMBERS_MAX, MEMBER_MAX, TOTAL_MAX, NAME_MAX = 4096, 2 << 30, 4 << 30, 100
EVENT_MAX, EVENTS_MAX, PAYLOAD_MAX, WINDOW_MAX = 65_535, 1 << 20, MIB, 8 * MIB
# What a reader grants a member; everything else is a configuration.
CAPS = {
    "audit/checkpoint": 16 << 10, "audit/events": 1 << 30, "audit/proof": 256 * MIB,
    "certificate.dsse.json": 4 * MIB, "evidence/checkpoint": 16 << 10, "evidence/events": 1 << 30,
    "evidence/payloads.zst": MEMBER_MAX, "evidence/proof": 256 * MIB, "manifest.dsse.json": 4 * MIB,
    "run/report.html": 64 * MIB, "run/report.json": 16 * MIB, "run/report.md": 64 * MIB,
    "run/seal.dsse.json": 4 * MIB}
REQUIRED = [
    "audit/checkpoint", "audit/events", "audit/proof", "bank.toml", "evidence/checkpoint", "evidence/events", "evidence/proof",
    "run/report.html", "run/report.json", "run/report.md", "run/seal.dsse.json", "trust.policy"]
OPTIONAL = ["bank.toml.sig", "certificate.dsse.json", "evidence/payloads.zst", "run/claims.json"]
PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*\Z")
STATEMENT = "https://in-toto.io/Statement/v1"

class Refused(Exception):
    """A defect: its finding code and what is wrong."""

def need(holds, code, what):
    if not holds:
        raise Refused(f"{code}: {what}")

def sha256(data):
    return hashlib.sha256(data).digest()

def b64(text, code, what):
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError):
        raw = None
    need(raw is not None and base64.b64encode(raw).decode() == text, code, f"{what} is not canonical base64")
    return raw

def signed_by(public, signature, message):
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
        return True
    except (InvalidSignature, ValueError):
        return False

# Archive (bundle.md, "Archive")

def header(name, size):
    raw = bytearray(512)
    raw[: len(name)] = name.encode()
    raw[100:108], raw[108:116], raw[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    raw[124:136], raw[136:148], raw[148:156] = b"%011o\0" % size, b"00000000000\0", b" " * 8
    raw[156:157], raw[257:265] = b"0", b"ustar\x0000"
    raw[148:156] = b"%07o\0" % sum(raw)
    return bytes(raw)

class Later:
    """A member too large to keep: hashed as it passes, read again where it is looked at."""

    def __init__(self, file, size):
        self.file, self.start, self.size, hasher = file, file.tell(), size, hashlib.sha256()
        for piece in self.pieces(MIB):
            hasher.update(piece)
        self.hex = hasher.hexdigest()

    def pieces(self, step):
        self.file.seek(self.start)
        for at in range(0, self.size, step):
            piece = self.file.read(min(step, self.size - at))
            need(piece, "BUNDLE_MALFORMED", "the file ends inside its payloads")
            yield piece

def check_name(name):
    below = next((name[len(top):] for top in ("config/", "target/") if name.startswith(top)), None)
    plain = below is not None and all(PART.match(part) for part in below.split("/"))
    known = name in REQUIRED or name in OPTIONAL or name == "manifest.dsse.json"
    need((known or plain) and len(name.encode()) <= NAME_MAX, "BUNDLE_MALFORMED", f"{name!r} is no member's name")

def members(file):
    """Name, size and a reader of exactly that many bytes, one after the other."""

    def exactly(size, what):
        data = file.read(size)
        need(len(data) == size, "BUNDLE_MALFORMED", f"the file ends inside {what}")
        return data

    last, total, count = None, 0, 0
    while True:
        block = exactly(512, "a header")
        if block == bytes(512):
            need(count > 0 and exactly(512, "its end") == bytes(512), "BUNDLE_MALFORMED", "the end is not two zero blocks")
            need(file.read(1) == b"", "BUNDLE_MALFORMED", "bytes follow the end")
            return
        try:
            name = block[:100].split(b"\0")[0].decode("ascii")
            size = int(block[124:135].decode("ascii"), 8)
        except ValueError:
            raise Refused("BUNDLE_MALFORMED: a header has no readable name and size") from None
        check_name(name)
        need(0 <= size <= MEMBER_MAX, "BUNDLE_MALFORMED", f"{name} would have {size} bytes")
        need(block == header(name, size), "BUNDLE_MALFORMED", f"the header of {name} is not canonical")
        first = name == "manifest.dsse.json"
        need((last is None) == first, "BUNDLE_MALFORMED", "the manifest is not first, or stands there twice")
        sorted_ = last in (None, "manifest.dsse.json") or name.encode() > last.encode()
        need(sorted_, "BUNDLE_MALFORMED", f"{name} stands after {last}")
        last, count, total = name, count + 1, total + 512 + size
        need(count <= MEMBERS_MAX and total <= TOTAL_MAX, "BUNDLE_MALFORMED", "too many members or bytes")
        cap = CAPS.get(name, 4 * MIB if name.endswith(".sig") else MIB)
        need(size <= cap, "BUNDLE_MALFORMED", f"{name} has {size} bytes, more than {cap}")
        yield name, size, Later(file, size) if name == "evidence/payloads.zst" else exactly(size, name)
        padding = exactly(-size % 512, "the padding of " + name)
        need(padding == bytes(len(padding)), "BUNDLE_MALFORMED", "padding is not zero")

# Trust policy (trust-policy.md), notes and checkpoints (notes.md)

def vkey(text):
    name, key_id, material = text.split("+", 2)
    material = b64(material, "call", "a verifier key")
    need(len(material) == 33 and sha256(name.encode() + b"\n" + material)[:4].hex() == key_id, "call", "a bad vkey")
    return {"name": name, "id": bytes.fromhex(key_id), "type": material[0], "public": material[1:]}

class Policy:
    def __init__(self, text):
        self.logs, self.witnesses, self.groups, self.quorum = {}, [], {}, None
        for line in text.splitlines():
            item = line.split()
            if not item or item[0].startswith("#"):
                continue
            if item[0] == "log" and len(item) in (2, 3):
                key = vkey(item[1])
                self.logs[key["name"]] = key
            elif item[0] == "witness" and len(item) in (3, 4):
                self.witnesses.append((item[1], vkey(item[2])))
            elif item[0] == "group" and len(item) > 3:
                need_ = {"all": len(item) - 3, "any": 1}.get(item[2]) or int(item[2])
                self.groups[item[1]] = (need_, item[3:])
            elif item[0] == "quorum" and len(item) == 2:
                self.quorum = item[1]
            else:
                raise Refused(f"call: {line!r} is not a line of a trust policy")
        need(self.quorum is not None, "call", "the trust policy has no quorum line")

    def learn_witness(self, workspace, role, public):
        """A role's next witness key, under the name of the first (trust-policy.md, "What is learned")."""
        full = f"{workspace}/{role}-witness"
        name = next((name for name, key in self.witnesses if key["name"] == full), None)
        if name:
            key_id = sha256(full.encode() + b"\n\4" + public)[:4]
            self.witnesses.append((name, {"name": full, "id": key_id, "type": 4, "public": public}))

    def holds(self, name, present):
        if name == "none" or name in present:
            return True
        needed, inside = self.groups.get(name, (1, []))
        return sum(self.holds(member, present) for member in inside) >= needed

def role_of(origin):
    match = re.match(r"[^/]+/(evidence|audit)(/[0-9]+)?\Z", origin)
    return {"evidence": "monitor", "audit": "auditor"}[match.group(1)] if match else None

def checkpoint(data, origin, keys, policy, name):
    """Size and root of a checkpoint that the log's key at that size signed and a quorum cosigned."""
    bad = "CHECKPOINT_INVALID"
    try:
        text, lines = data.decode("utf-8").rsplit("\n\n", 1)
    except ValueError:
        raise Refused(f"{bad}: {name} is no signed note") from None
    text += "\n"
    need(lines.endswith("\n") and re.match(r"[^\n]+\n(0|[1-9][0-9]*)\n[^\n]+\n\Z", text), bad, f"{name} is no checkpoint")
    found, size, root = text.splitlines()
    need(found == origin, bad, f"{name} is a checkpoint of {found}")
    public = [public for from_, public in keys if from_ < max(int(size), 1)][-1]
    log_id, own, cosigned = sha256(origin.encode() + b"\n\1" + public)[:4], False, set()
    for line in lines[:-1].split("\n"):
        match = re.match("— ([^ ]+) ([^ ]+)\\Z", line)
        need(match, bad, f"{name}: not a signature line")
        key_name, raw = match.group(1), b64(match.group(2), bad, "a signature")
        key_id, signature = raw[:4], raw[4:]
        if key_name == origin and key_id == log_id:
            need(signed_by(public, signature, text.encode()), bad, f"{name}: the log's signature is bad")
            own = True
        for witness, key in policy.witnesses:
            if key_name == key["name"] and key_id == key["id"]:
                need(len(signature) == 72, bad, "a cosignature has 72 bytes")
                time = int.from_bytes(signature[:8], "big")
                message = f"cosignature/v1\ntime {time}\n{text}".encode()
                need(signed_by(key["public"], signature[8:], message), bad, f"{name}: a cosignature is bad")
                role = f"{role_of(origin)}-witness"
                if witness != role and key["name"] != f"{origin.split('/')[0]}/{role}":
                    cosigned.add(witness)
    need(own, bad, f"{name} is not signed by {origin}")
    need(policy.holds(policy.quorum, cosigned), bad, f"{name}: no quorum of witnesses")
    return int(size), b64(root, bad, "a root"), sorted(cosigned)

# Statements (statements.md)

def key_id(public):
    inner = '{"keytype":"ed25519","keyval":{"public":"%s"},"scheme":"ed25519"}' % public.hex()
    return hashlib.sha256(inner.encode()).hexdigest()

def statement(data, publics, kind, code):
    """The statement of this kind in an envelope that one of these keys signed, and the key."""
    try:
        envelope = json.loads(data)
        signatures = [(line["keyid"], line["sig"]) for line in envelope["signatures"]]
        need(envelope["payloadType"] == "application/vnd.in-toto+json" and 1 <= len(signatures) <= 8, code, "no envelope")
        payload = b64(envelope["payload"], code, "a payload")
    except (ValueError, KeyError, TypeError):
        raise Refused(f"{code}: not a DSSE envelope") from None
    pae = b"DSSEv1 28 application/vnd.in-toto+json %d " % len(payload) + payload
    signed = [(public, b64(sig, code, "sig")) for public in publics for _, sig in signatures]
    public = next((public for public, sig in signed if signed_by(public, sig, pae)), None)
    if public is None:
        named = any(hint == key_id(public) for public in publics for hint, _ in signatures)
        untrusted = kind.endswith(":bundle:v1") and not named
        raise Refused(f"{'ISSUER_UNTRUSTED' if untrusted else code}: no pinned key signed it; it names {signatures[0][0]}")
    content = json.loads(payload)
    need(content.get("_type") == STATEMENT and content.get("predicateType") == kind, code, f"it is no {kind}")
    return content, public

def subjects(content):
    return [(subject["name"], subject["digest"]["sha256"]) for subject in content["subject"]]

# Events (events.md, kinds.md)

class Reader:
    """Canonical postcard: what is left over or could be spelled otherwise is refused."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, size):
        self.at += size
        need(self.at <= len(self.data), "BUNDLE_MALFORMED", "an event ends too early")
        return self.data[self.at - size : self.at]

    def number(self, bits=64):
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                need((byte or shift == 7) and value < 1 << bits, "BUNDLE_MALFORMED", "an overlong or too large number")
                return value

    def signed(self):
        value = self.number()
        return (value >> 1) ^ -(value & 1)

    def bytes(self):
        return self.take(self.number(32))

    def text(self):
        try:
            return self.bytes().decode("utf-8")
        except UnicodeDecodeError:
            raise Refused("BUNDLE_MALFORMED: a text is not UTF-8") from None

    def option(self, read):
        tag = self.take(1)[0]
        need(tag < 2, "BUNDLE_MALFORMED", "an option is 0 or 1")
        return read() if tag else None

    def list(self, read):
        return [read() for _ in range(self.number(32))]

    def end(self):
        need(self.at == len(self.data), "BUNDLE_MALFORMED", "bytes are left over")

def payload_ref(r):
    wire, length, _, stored = r.take(32), r.number(), r.text(), r.number(32)
    need(stored < 4, "BUNDLE_MALFORMED", "an unknown way of storing")
    if stored in (1, 2):
        kept = (r.take(32), r.number())
        r.text()
        return kept
    return (wire, length) if stored == 0 else None

def head(r):
    return {"origin": r.text(), "size": r.number(), "root": r.take(32).hex()}

def link(r):
    return (r.number(), r.take(32), r.number())

# The kinds whose fields are looked at here; the rest is the scorer's.
KINDS = {
    1: lambda r: {"origin": r.text(), "role": r.number(32), "public": r.take(32), "witness": r.take(32),
                  "software": r.text(), "predecessor": r.option(lambda: head(r))},
    2: lambda r: {"purpose": r.number(32), "public": r.take(32)},
    7: lambda r: {"origin": r.text(), "purpose": r.number(32), "public": r.take(32), "from": r.number(), "why": r.text()},
    100: lambda r: {"number": r.number(), "purpose": r.number(32), "channel": r.number(32), "isolation": r.number(32),
                    "argv": r.list(r.text), "artifact": r.option(lambda: r.take(32)), "lease": r.option(r.text),
                    "previous": r.option(lambda: link(r))},
    101: lambda r: {"events": r.number(), "first": r.number(), "last": r.number(), "root": r.take(32), "outcome": r.number(32)},
    102: lambda r: {"number": r.number(), "open_hash": r.take(32), "open": r.list(lambda: r.take(16))},
    120: lambda r: {"path": r.text(), "version": r.option(r.number), "sha256": r.take(32), "state": r.number(32)},
    300: lambda r: {"path": r.text(), "version": r.number(), "sha256": r.take(32), "agent": r.option(r.text)},
    301: lambda r: {"run_id": r.text(), "agent": r.text(), "report": r.take(32).hex(), "evidence": head(r), "audit_size": r.number(),
                    "status": r.text(), "label": r.text(), "overall_bp": r.number(32), "integrity_bp": r.number(32)},
}
PURPOSE_LOG = 0

def event(body):
    r = Reader(body)
    need(r.take(1)[0] == 1, "BUNDLE_MALFORMED", "an event of another version")
    found = {"index": r.number(), "prev": r.take(32), "wall_ns": r.signed()}
    r.number(), r.take(16)
    found["agent"], found["session"] = r.option(r.text), r.option(lambda: r.take(16))
    found["seq"], found["tier"] = r.number(32), r.take(1)[0]
    need(found["tier"] < 4, "BUNDLE_MALFORMED", "an unknown tier")
    found["payload"] = r.option(lambda: payload_ref(r))
    found["kind"], fields = r.number(16), r.bytes()
    r.end()
    found["hash"], found["fields"] = sha256(b"\0" + body), None
    if found["kind"] in KINDS:
        r = Reader(fields)
        found["fields"] = KINDS[found["kind"]](r)
        r.end()
    return found

def records(data, origin, key, role):
    """The events of a log: each signed by the key at its place, ascending, chained where neighbours are there."""
    log, keys, at = [], [(0, key)], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        body, signature = data[at + 4 : at + 4 + size], data[at + 4 + size : at + 68 + size]
        need(1 <= size <= EVENT_MAX and len(signature) == 64 and len(log) < EVENTS_MAX, "BUNDLE_MALFORMED", "a bad record")
        at += 68 + size
        found = event(body)
        index, where = found["index"], f"{origin}#{found['index']}"
        need(not log or index > log[-1]["index"], "EVENT_OUT_OF_ORDER", where)
        valid = [public for from_, public in keys if from_ <= index][-1]
        message = b"amc/event/v1\n" + origin.encode() + b"\n" + found["hash"]
        need(signed_by(valid, signature, message), "EVENT_SIGNATURE_INVALID", where)
        before = log[-1] if log else None
        chained = index == 0 and found["prev"] == bytes(32) or before and (
            index != before["index"] + 1 or found["prev"] == before["hash"])
        need(chained or not before and index, "CHAIN_BROKEN", where)
        found["key"] = valid
        if found["kind"] == 2 and found["fields"]["purpose"] == PURPOSE_LOG:
            keys.append((index + 1, found["fields"]["public"]))
        log.append(found)
    opened = log[0]["fields"] if log and log[0]["index"] == 0 and log[0]["kind"] == 1 else None
    ok = opened and opened["origin"] == origin and opened["public"] == key and opened["role"] == role
    need(ok, "KEY_HISTORY_UNTRUSTED", f"{origin} does not begin with the pinned key")
    return log, keys

def check_tree(log, size, root, proof, name):
    """The multiproof: all events are leaves of the checkpoint's tree."""
    bad = "CHECKPOINT_INVALID"
    need(len(proof) % 32 == 0 and log and log[-1]["index"] < size, bad, f"{name} is no proof of these events")
    known, width, hashes = {found["index"]: found["hash"] for found in log}, size, iter(range(0, len(proof), 32))
    while width > 1:
        for i in sorted(known):
            if i ^ 1 < width and i ^ 1 not in known:
                at = next(hashes, None)
                need(at is not None, bad, f"{name} has too few hashes")
                known[i ^ 1] = proof[at : at + 32]
        up = {}
        for i in known:
            left, right = known[i & ~1], known.get(i | 1)
            up[i // 2] = left if right is None else sha256(b"\1" + left + right)
        known, width = up, (width + 1) // 2
    need(next(hashes, None) is None and known[0] == root, bad, f"{name} leads to another root, or has hashes to spare")

def tree_root(leaves):
    while len(leaves) > 1:
        pairs = zip(leaves[::2], leaves[1::2])
        leaves = [sha256(b"\1" + a + b) for a, b in pairs] + ([leaves[-1]] if len(leaves) % 2 else [])
    return leaves[0]

def check_sessions(log, agent, origin):
    open_, last, last_head, sealed = {}, None, None, 0
    for found in log:
        where, fields, session = f"{origin}#{found['index']}", found["fields"], found["session"]
        need(found["agent"] in (None, agent), "BUNDLE_MEMBER_MISMATCH", f"{where} is of another agent")
        if found["kind"] == 102:
            need(session is None, "SESSION_GAP", f"{where}: a head in a session")
            known = {other["session"] for other in log if other["index"] < found["index"] and other["session"]}
            need([id_ for id_ in fields["open"] if id_ in known] == sorted(open_), "SESSION_GAP", f"{where}: open sessions")
            last_head = (fields, last)
        elif session is None:
            need(found["kind"] not in (100, 101), "SESSION_GAP", f"{where} names no session")
        elif found["kind"] == 100:
            need(session not in open_ and found["seq"] == 0, "SESSION_GAP", f"{where} opens twice")
            follows = last is None or fields["number"] == last[0] + 1 and fields["previous"] == last
            need(follows, "SESSION_GAP", f"{where}: session {fields['number']} does not follow")
            last = (fields["number"], found["hash"], found["index"])
            open_[session] = [found]
        else:
            code = "SESSION_SEAL_INVALID" if found["kind"] == 101 else "SESSION_GAP"
            need(session in open_, code, f"{where}: its session is not open")
            events = open_[session]
            need(found["seq"] == len(events), "SESSION_GAP", f"{where}: a gap in the sequence")
            if found["kind"] == 101:
                said = (fields["events"], fields["first"], fields["last"], fields["root"])
                root = tree_root([inner["hash"] for inner in events])
                real = (len(events), events[0]["index"], events[-1]["index"], root)
                need(said == real, "SESSION_SEAL_INVALID", where)
                del open_[session]
                sealed += 1
            else:
                events.append(found)
    if last_head is None:
        need(sealed <= 1, "SESSION_GAP", "no agent_head is here")
        return
    fields, before = last_head
    agrees = (fields["number"], fields["open_hash"]) == (before[:2] if before else (0, fields["open_hash"]))
    need(agrees, "SESSION_GAP", f"the head names session {fields['number']}, and it is not here")

def check_revoked(log, origin, other):
    for revoked in (found["fields"] for found in other if found["kind"] == 7):
        if revoked["origin"] == origin and revoked["purpose"] == PURPOSE_LOG:
            after = any(found["index"] >= revoked["from"] and found["key"] == revoked["public"] for found in log)
            need(not after, "KEY_REVOKED", f"{origin} from {revoked['from']} on")

def check_payloads(data, says, log):
    wanted = {}
    for digest, length in (found["payload"] for found in log if found["payload"]):
        known = wanted.setdefault(digest, length)
        need(known == length and length <= PAYLOAD_MAX, "PAYLOAD_HASH_MISMATCH", "an impossible payload")
    absent = {bytes.fromhex(text) for text in says["payloads_absent"]}
    need(absent <= set(wanted), "PAYLOAD_HASH_MISMATCH", "an absent payload that no event names")
    if data is None:
        return 0
    try:
        import zstandard
    except ImportError:
        print("note: payloads were not looked at; install zstandard")
        return 0
    present = [digest for digest in sorted(wanted) if digest not in absent]
    size = sum(wanted[digest] + 4 for digest in present)
    unpacked = next(entry.get("unpacked") for entry in says["members"] if entry["name"] == "evidence/payloads.zst")
    need(unpacked == size, "PAYLOAD_MISSING", f"the payloads have {size} bytes")
    try:
        frame, ready = unpack(zstandard, data), b""
        for digest in present:
            length = wanted[digest]
            while len(ready) < 4 + length:
                piece = next(frame, None)
                need(piece is not None, "PAYLOAD_HASH_MISMATCH", "the frame ends too early")
                ready += piece
            said, entry, ready = int.from_bytes(ready[:4], "little"), ready[4 : 4 + length], ready[4 + length :]
            need(said == length and sha256(entry) == digest, "PAYLOAD_HASH_MISMATCH", digest.hex())
        need(not ready and not any(frame), "PAYLOAD_HASH_MISMATCH", "bytes to spare")
    except zstandard.ZstdError as error:
        raise Refused(f"BUNDLE_MALFORMED: payloads: {error}") from None
    return len(present)

def unpack(zstandard, data):
    """What one frame unpacks to. A block of 4 bytes may give 128 KiB, so little goes in at a time."""
    inner = zstandard.ZstdDecompressor(max_window_size=WINDOW_MAX).decompressobj()
    for piece in data.pieces(64):
        yield inner.decompress(piece)
    need(inner.eof and not inner.unused_data, "BUNDLE_MALFORMED", "the payloads are not one frame")

def check_configs(found, signers, audit, evidence):
    for name, data in found.items():
        top = next((top for top in ("config/", "target/") if name.startswith(top)), None)
        if top is None or name.endswith(".sig"):
            need(top is None or name[:-4] in found, "BUNDLE_MEMBER_UNEXPECTED", f"{name} has no file")
            continue
        path = name[len(top) :]
        parts = path.split("/")
        agent = parts[1] if parts[0] == "agents" and len(parts) > 2 else None
        signed = [entry["fields"] for entry in audit if entry["kind"] == 300 and entry["fields"]["path"] == path]
        if name + ".sig" not in found:
            need(not signed, "CONFIG_UNSIGNED", path)
            continue
        content, _ = statement(found[name + ".sig"], signers, "urn:amc:predicate:config:v1", "CONFIG_SIGNATURE_INVALID")
        says, digest = content["predicate"], sha256(data)
        need(subjects(content) == [(says["path"], digest.hex())], "CONFIG_SIGNATURE_INVALID", path)
        need((says["path"], says["agent"]) == (path, agent), "CONFIG_PATH_MISMATCH", path)
        entry = next((entry for entry in signed if entry["version"] == says["version"]), None)
        need(entry and signed[-1]["version"] <= says["version"], "CONFIG_STALE", path)
        need((entry["sha256"], entry["agent"]) == (digest, agent), "CONFIG_SIGNATURE_INVALID", path)
        loaded = [item["fields"] for item in evidence if item["kind"] == 120 and item["fields"]["path"] == path]
        wrong = any(item["version"] == says["version"] and item["sha256"] != digest and item["state"] == 0 for item in loaded)
        need(not wrong, "CONFIG_SIGNATURE_INVALID", f"the monitor loaded another {path}")

def check_run(found, says, signers, audit, size, root, origin):
    report = json.loads(found["run/report.json"])
    same = all(report[key] == says[key] for key in ("run_id", "agent", "workspace"))
    need(same and report["audit"]["origin"] == says["issuer"], "BUNDLE_MEMBER_MISMATCH", "the report is of another run")
    need(report["evidence"] == {"origin": origin, "size": size, "root": root.hex()}, "CHECKPOINT_INVALID", "another slice")
    digest = hashlib.sha256(found["run/report.json"]).hexdigest()
    after = [entry for entry in audit if entry["index"] >= report["audit"]["size"] and entry["kind"] not in (2, 7, 8)]
    wanted = {"run_id": report["run_id"], "agent": report["agent"], "report": digest, "evidence": report["evidence"],
              "audit_size": report["audit"]["size"], "status": report["status"], "label": report["label"],
              "overall_bp": report["overall_bp"], "integrity_bp": report["integrity_bp"]}
    need(len(after) == 1 and after[0]["kind"] == 301 and after[0]["fields"] == wanted, "RUN_MISSING", "the run's entry")
    content, _ = statement(found["run/seal.dsse.json"], signers, "urn:amc:predicate:run:v1", "RUN_SEAL_INVALID")
    keys = ("run_id", "workspace", "agent", "scorer", "evidence", "audit", "status", "label", "overall_bp", "integrity_bp")
    need(subjects(content) == [("report.json", digest)], "RUN_SEAL_INVALID", "the seal is of another report")
    need(content["predicate"] == {key: report[key] for key in keys}, "RUN_SEAL_INVALID", "the seal says otherwise")
    bank = hashlib.sha256(found["bank.toml"]).hexdigest()
    need(bank == report["bank"]["sha256"], "SCORE_MISMATCH", "the bank is not the report's")
    return report

def auditors_keys(claimed, audit_events, policy):
    """Keys that the pinned audit log of this name names; the manifest is not trusted before they are known."""
    log = policy.logs.get(claimed) if role_of(str(claimed)) == "auditor" else None
    return [public for _, public in records(audit_events, claimed, log["public"], 1)[1]] if log else []

def manifest(data, others, policy):
    """What the manifest says, once a pinned auditor's key signed it, or one that the pinned key leads to."""
    kind, code = "urn:amc:predicate:bundle:v1", "BUNDLE_MEMBER_MISMATCH"
    pinned = [log["public"] for origin, log in policy.logs.items() if role_of(origin) == "auditor"]
    try:
        content, issuer = statement(data, pinned, kind, code)
    except Refused as refused:
        if not str(refused).startswith("ISSUER_UNTRUSTED"):
            raise
        try:
            claimed = json.loads(base64.b64decode(json.loads(data)["payload"]))["predicate"]["issuer"]
            learned = auditors_keys(claimed, others.get("audit/events", b""), policy)
        except (Refused, ValueError, KeyError, TypeError):
            learned = []
        if not learned:
            raise
        content, issuer = statement(data, learned, kind, code)
    says, envelope = content["predicate"], json.loads(data)
    line = json.dumps({key: envelope[key] for key in ("payload", "payloadType", "signatures")}, separators=(",", ":"))
    one = [signature["keyid"] for signature in envelope["signatures"]] == [key_id(issuer)]
    need(one and (line + "\n").encode() == data, "BUNDLE_MALFORMED", "the manifest is not in its one spelling")
    need(says["version"] == 1 and says["payloads"] in ("included", "withheld"), "BUNDLE_MALFORMED", "a newer format")
    known = says["issuer"] in policy.logs and role_of(says["issuer"]) == "auditor"
    need(known and says["workspace"] == says["issuer"].split("/")[0], "ISSUER_UNTRUSTED", says["issuer"])
    names = [entry["name"] for entry in says["members"]]
    same = [name for name, _ in subjects(content)] == names == sorted(set(names), key=str.encode)
    there = ("evidence/payloads.zst" in names) == (says["payloads"] == "included")
    need(same and there and not set(REQUIRED) - set(names), "BUNDLE_MALFORMED", "the manifest contradicts itself")
    return says, issuer, list(zip(says["members"], (digest for _, digest in subjects(content))))

def verify(file, policy):
    found = {name: data for name, _, data in members(file)}
    says, issuer, listed = manifest(found.pop("manifest.dsse.json"), found, policy)
    names = {entry["name"] for entry, _ in listed}
    extra = next((name for name in found if name not in names), None)
    need(extra is None, "BUNDLE_MEMBER_UNEXPECTED", extra)
    for entry, digest in listed:
        data = found.get(entry["name"])
        size, hash_ = (data.size, data.hex) if isinstance(data, Later) else (len(data or b""), sha256(data or b"").hex())
        intact = data is not None and (size, hash_) == (entry["size"], digest)
        need(intact, "BUNDLE_MEMBER_MISMATCH", f"{entry['name']} was changed, or is missing")

    origin = found["evidence/checkpoint"].split(b"\n")[0].decode("utf-8", "replace")
    of_workspace = role_of(origin) == "monitor" and origin.split("/")[0] == says["workspace"]
    need(of_workspace and origin in policy.logs, "CHECKPOINT_INVALID", f"{origin} is not pinned")
    logs, keys, heads = {}, {}, {}
    sides = (("audit", says["issuer"], 1), ("evidence", origin, 0))
    for log, name, role in sides:
        logs[log], keys[log] = records(found[f"{log}/events"], name, policy.logs[name]["public"], role)
        for rotated in (found_["fields"] for found_ in logs[log] if found_["kind"] == 2):
            if rotated["purpose"] != PURPOSE_LOG:
                policy.learn_witness(says["workspace"], ("monitor", "auditor")[role], rotated["public"])
    revoked = {entry["fields"]["public"] for log in logs.values() for entry in log
               if entry["kind"] == 7 and entry["fields"]["purpose"] != PURPOSE_LOG}
    policy.witnesses = [(name, key) for name, key in policy.witnesses if key["public"] not in revoked]
    need(keys["audit"][-1][1] == issuer, "KEY_OUT_OF_VALIDITY", "the audit log retired the key of this manifest")
    signers = [public for _, public in keys["audit"]]
    for log, name, _ in sides:
        size, root, cosigned = checkpoint(found[f"{log}/checkpoint"], name, keys[log], policy, f"{log}/checkpoint")
        check_tree(logs[log], size, root, found[f"{log}/proof"], f"{log}/proof")
        heads[log] = (size, root, cosigned)
    audit, evidence = logs["audit"], logs["evidence"]
    check_revoked(evidence, origin, audit)
    check_revoked(audit, says["issuer"], evidence)
    check_sessions(evidence, says["agent"], origin)
    report = check_run(found, says, signers, audit, heads["evidence"][0], heads["evidence"][1], origin)
    check_configs(found, signers, audit, evidence)
    payloads = check_payloads(found.get("evidence/payloads.zst"), says, evidence)
    return {"run_id": report["run_id"], "agent": report["agent"], "status": report["status"], "label": report["label"],
            "evidence_events": len(evidence), "audit_events": len(audit), "payloads": payloads,
            "witnesses": {log: names for log, (_, _, names) in heads.items()}, "issuer": key_id(issuer)}

def main(arguments):
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        with open(arguments[1], encoding="utf-8") as file:
            policy = Policy(file.read())
        with open(arguments[0], "rb") as file:
            print(json.dumps(verify(file, policy)))
        return 0
    except (OSError, Refused) as refused:
        print(refused, file=sys.stderr)
        return 2 if isinstance(refused, OSError) or str(refused).startswith("call:") else 1
    except (KeyError, ValueError, TypeError, IndexError, AttributeError, RecursionError) as error:
        # JSON of another shape than the pages describe.
        print(f"BUNDLE_MALFORMED: {type(error).__name__}: {error}", file=sys.stderr)
        return 1

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

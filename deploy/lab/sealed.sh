# Scenario: the server runs in the guest itself, on a kernel that has mseal, Landlock, seccomp and SOCK_DESTROY. What it says of
# its memory and its sandbox is what the kernel says; and the kernel's own host comes back at once, however its connections end.
TARGET_HOST=127.0.0.1 PORT=4420 NQN=nqn.2026-01.io.brindle:sealed
. /run/in/scenario.sh

WORK=/run/sealed
mkdir -p $WORK
cd $WORK
cat >test.yaml <<YAML
version: 1
name: sealed
reactors: {count: 2, memory: 64MiB}
devices:
  - {name: d0, kind: ram, size: 32MiB}
  - {name: d1, kind: ram, size: 32MiB}
  - {name: d2, kind: ram, size: 32MiB}
  - {name: l0, kind: ram, size: 32MiB}
arrays:
  - {name: a0, level: raid5, members: [d0, d1, d2], log: {devices: [l0], lanes: 2}, volumes: [{name: v0, size: 32MiB}]}
listeners:
  - {name: main, protocol: nvme-tcp, address: 127.0.0.1:$PORT}
subsystems:
  - {nqn: "$NQN", listeners: [main], hosts: any, namespaces: [{nsid: 1, volume: a0/v0}]}
control: {socket: $WORK/control.sock}
YAML
serve

say "Linux $(uname -r)"
brindle status --memory test.yaml
brindle status --memory --json test.yaml >memory.json
cp "/proc/$server/smaps" smaps
python3 - <<'PYTHON' || fail "memory is not protected as it could be"
import json, os, re
told = json.load(open("memory.json"))
release = tuple(int(part) for part in re.match(r"(\d+)\.(\d+)", os.uname().release).groups())
flags, start = {}, None
for line in open("smaps"):
    found = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+)", line)
    if found:
        start, stop, access = int(found[1], 16), int(found[2], 16), found[3]
    elif line.startswith("VmFlags:"):
        flags[(start, stop)] = (access, line.split()[1:])
memory, sandbox = told["memory"], told["sandbox"]
assert memory["policy"] == "kill" and memory["unsealed"] == 0, memory
names = {region["name"] for region in memory["regions"]}
assert {"configuration", "statics", "exports", "volume map", "array map", "program code", "program tables"} <= names, names
for region in memory["regions"]:
    stays = region["kind"] != "snapshot"
    assert (region["protection"] == "final") == (stays and release >= (6, 10)), region
    end = region["start"] + region["bytes"]
    inside = [seen for (start, stop), seen in flags.items() if start < end and region["start"] < stop]
    assert inside and all("w" not in access for access, _ in inside), region
    # The flag of sealed mappings is shown from Linux 6.14 on.
    if region["protection"] == "final" and release >= (6, 14):
        assert all("sl" in shown for _, shown in inside), (region, inside)
assert sandbox["on"] and sandbox["file_rules"] > 0 and sandbox["call_filter"] and sandbox["refused_calls"] == 0, sandbox
assert "net_admin" in sandbox["capabilities"], sandbox
PYTHON
say "sealed and confined"

connect
dd if=/dev/urandom of=/tmp/data bs=1M count=8 status=none
dd if=/tmp/data of="$(device)" bs=1M oflag=direct status=none

# ended WHAT COMMAND... : the connections end, and the kernel's host is back with what it had written
ended() {
    local what=$1 before
    shift
    before=$(reconnects)
    "$@" >/tmp/said || { cat /tmp/said; fail "$what"; }
    wait_for 60 eval '[ "$(reconnects)" -gt '"$before"' ]' || fail "the host did not come back after: $what"
    wait_for 30 is_live || fail "a controller is not live after: $what"
    forget
    cmp -n 8388608 /tmp/data "$(device)" || fail "something else is read after: $what"
    say "$what: $(cat /tmp/said)"
}
ended "killed by the operator" brindle connections kill --all --yes --config test.yaml
ended "destroyed by the kernel" brindle connections kill --pid "$server" --port "$PORT" --yes --config test.yaml
brindle connections --ended --json --config test.yaml >ended.json
for words in "killed by the operator" "its socket was destroyed from outside"; do
    grep -q "ECONNABORTED: $words" ended.json || { cat ended.json; fail "not told: $words"; }
done
# Without the privilege the kernel destroys nothing, and the appliance ends its own connections itself.
ended "ended by the appliance itself" setpriv --bounding-set=-net_admin /run/in/brindle connections kill \
    --pid "$server" --port "$PORT" --yes --config test.yaml
grep -q 'CAP_NET_ADMIN' /tmp/said || fail "it does not say why"

disconnect
stop_server
! grep -q 'the sandbox refuses' serve.log || { grep 'the sandbox refuses' serve.log; fail "something it needs is refused"; }
say "done"
